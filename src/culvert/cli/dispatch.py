"""From the arguments to the command.

What runs tunnels (`run`, a bare file, everything under stunnel's name) is found here by hand, before Typer
and Rich are imported: a daemon and its workers must not carry the modules of a command line. The other
commands import them when they are called.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from culvert.cli.faults import CONFIGURATION_STATUS, guard, say

DAEMON_COMMANDS = ("connections", "level", "reload", "status", "stop", "top")
"""About a daemon that runs: scripts call them again and again, so they load nothing of the others."""

COMMANDS = (*DAEMON_COMMANDS, "ca", "check", "demo", "options", "run", "stunnel", "trace", "version")
STUNNEL_NAMES = ("stunnel", "stunnel4")


def main() -> int:
    """The entry point of the console script: returns the exit status."""
    if not sys.warnoptions:
        # A library's words to programmers, as on a root with serial number 0 in a distribution's bundle: the
        # operator can do nothing about them, and a log's readers would take them for a fault.
        warnings.filterwarnings("ignore", module=r"culvert\.")
    return guard(lambda: dispatch(sys.argv))


def dispatch(argv: Sequence[str]) -> int:
    """Run what `argv` asks for; its first element is the name under which the program was called."""
    program, *arguments = argv
    if Path(program).name in STUNNEL_NAMES:
        return _stunnel(arguments)
    match arguments:
        case ["stunnel", *rest]:
            return _stunnel(rest)
        case ["run", "--", file]:
            return _run(file)
        case ["run", file] if not file.startswith("-"):
            return _run(file)
        case [file] if not file.startswith("-") and file not in COMMANDS:
            return _run_bare(file)
        case _:
            return _typer(arguments)


def _run_bare(file: str) -> int:
    """`culvert FILE`, unless FILE looks more like a command that was misspelt."""
    meant = difflib.get_close_matches(file, COMMANDS, n=1)
    if meant and not Path(file).exists():
        say(f"{file} is neither a command nor a file (did you mean '{meant[0]}'?)")
        return CONFIGURATION_STATUS
    return _run(file)


def _run(file: str) -> int:
    from culvert.cli.running import run_file  # noqa: PLC0415

    return run_file(file)


def _stunnel(arguments: Sequence[str]) -> int:
    from culvert.cli.stunnel import stunnel  # noqa: PLC0415

    return stunnel(arguments)


def _typer(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in DAEMON_COMMANDS:
        from culvert.cli.daemon.commands import run_daemon_command  # noqa: PLC0415

        return run_daemon_command(arguments)
    from culvert.cli.commands import run_command  # noqa: PLC0415

    return run_command(arguments)
