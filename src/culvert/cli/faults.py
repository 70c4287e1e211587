"""What the user is told on standard error, in stunnel's form for the time before a log is open: `[!] text`.

Also the border behind which no traceback gets out: whatever ends a command ends it with a sentence and an
exit status.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from culvert.errors import ConfigurationError, Severity
from culvert.version import __version__

CONFIGURATION_STATUS = 1
CRASH_STATUS = 70
"""Both as in `culvert.privileges.ExitStatus`, which is not imported here: this module must work when an
import of any other fails."""

_INTERRUPTED_STATUS = 130
_OUTPUT_STATUS = 1
_OUTPUT_ERRORS = frozenset({errno.EPIPE, errno.ENOSPC})
_MARKS = {Severity.ERROR: "!", Severity.WARNING: ":", Severity.NOTE: "."}


def say(text: str, mark: str = "!") -> None:
    """One marked line; the mark is stunnel's: `!` for an error, `:` for a warning, `.` for a notice."""
    tell(f"[{mark}] {printable(text)}")


def tell(line: str) -> None:
    """One line on standard error, as it is."""
    # Without the stream, print would take standard output, which must stay empty; and a terminal that
    # was closed is no reason to end otherwise.
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text without control characters: the lines of a file must not command the terminal."""
    if text.isprintable():
        return text
    return "".join(_show(character) for character in text)


def _show(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character == "\t" else "."


def report(error: ConfigurationError) -> None:
    """All findings, one a line."""
    for finding in error.diagnostics:
        say(str(finding), _MARKS[finding.severity])


def guard(command: Callable[[], int]) -> int:
    """Run a command and return its exit status, whatever happens in it."""
    try:
        status = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # left to the interpreter's exit, a failure would end in a traceback
        return status
    except ConfigurationError as error:
        report(error)
        return CONFIGURATION_STATUS
    except KeyboardInterrupt:
        return _INTERRUPTED_STATUS
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS:
            return _give_up_output(error)
        _report_fault(error)
        return CRASH_STATUS


def _give_up_output(error: OSError) -> int:
    """End for want of a place to write to: quietly where the reader went away, as `| head` does."""
    if error.errno != errno.EPIPE:
        say(f"Cannot write: {error.strerror}")
    # What Python still holds would be written, and fail once more, as it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _OUTPUT_STATUS


def _report_fault(error: Exception) -> None:
    say(f"This is a fault of culvert, not of its configuration: {type(error).__name__}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    places = (f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}" for frame in reversed(frames))
    say("It happened at " + " < ".join(places))
    system = f"culvert {__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    say(f"Please report it to the project's issue tracker, with these lines and: {system}")
