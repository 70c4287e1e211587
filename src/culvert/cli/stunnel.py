"""stunnel's own command line: `[FILE] | -fd N | -help | -version | -sockets | -options`.

Everything is said on standard error and standard output stays empty, as the programs that start stunnel
expect: some read the lines of `-help` to learn which options exist. Typer and Rich are not imported here.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Sequence

from culvert.cli.faults import CONFIGURATION_STATUS, say, tell
from culvert.cli.option_text import default_values
from culvert.cli.running import run_descriptor, run_file
from culvert.cli.version import openssl_version
from culvert.config.options import OPTIONS, Availability, Option, Scope
from culvert.config.socket_options import SOCKET_OPTIONS
from culvert.config.tls_options import TLS_OPTIONS
from culvert.config.values import MAX_NUMBER
from culvert.version import __version__

DEFAULT_FILE = "/etc/stunnel/stunnel.conf"
"""What Debian's stunnel4 reads when it is called without an argument."""

DRAIN_TIMEOUT = 0.0
"""In stunnel's place connections are ended at once, as init scripts expect, if the file says nothing."""

_SYNTAX = (
    "Syntax:",
    "stunnel [FILE] | -fd N | -help | -version | -sockets | -options",
    "    FILE        - read the configuration from this file",
    "    -fd N       - read the configuration from this file descriptor",
    "    -help       - list the options of a configuration file",
    "    -version    - show the version and the defaults",
    "    -sockets    - show the defaults of socket options",
    "    -options    - list the TLS options",
)


def stunnel(arguments: Sequence[str]) -> int:
    """Do what stunnel does with these arguments; what stands behind the first that it heeds is ignored."""
    first = arguments[0] if arguments else DEFAULT_FILE
    flag = first.lower()
    if flag in _LISTINGS:
        for line in (*_banner(), "", *_LISTINGS[flag]()):
            tell(line)
        return 0
    if flag == "-fd":
        return _run_descriptor(arguments[1:])
    return _run_file(first)


def _run_descriptor(arguments: Sequence[str]) -> int:
    if not arguments:
        return _refuse("No file descriptor specified")
    if not (arguments[0].isascii() and arguments[0].isdigit()) or int(arguments[0]) > MAX_NUMBER:
        return _refuse("Invalid file descriptor number")
    return run_descriptor(int(arguments[0]), DRAIN_TIMEOUT)


def _run_file(file: str) -> int:
    try:
        path = os.path.realpath(file, strict=True)
    except OSError as error:
        say(f'Invalid configuration file name "{file}"')
        say(f"{error.strerror} ({error.errno})")
        return CONFIGURATION_STATUS
    return run_file(path, DRAIN_TIMEOUT)


def _refuse(reason: str) -> int:
    say(reason)
    for line in _SYNTAX:
        say(line, ".")
    return CONFIGURATION_STATUS


def _banner() -> tuple[str, ...]:
    return (
        f"culvert {__version__} on {platform.machine()}-{platform.system().lower()} platform",
        f"Running  with OpenSSL {openssl_version()}, Python {platform.python_version()}",
    )


def _help() -> Iterator[str]:
    """One line for each option that this version has: the name, padded to 22 columns, and ` = `."""
    yield from _by_scope(lambda option: [option.help])


def _defaults() -> Iterator[str]:
    yield from _by_scope(
        lambda option: [f"{DRAIN_TIMEOUT:g}"] if option.name == "drainTimeout" else default_values(option)
    )


def _by_scope(values: Callable[[Option], Sequence[str]]) -> Iterator[str]:
    sections = {"Global options:": Scope.GLOBAL, "Service-level options:": Scope.SERVICE}
    for title, scope in sections.items():
        yield title
        for option in OPTIONS:
            if option.availability is Availability.AVAILABLE and option.scope in (scope, Scope.BOTH):
                for value in values(option):
                    yield f"{option.name:<22} = {value}"
        yield ""


def _sockets() -> Iterator[str]:
    """The socket options, with Culvert's defaults for the listening, the accepted and the remote socket."""
    defaults = [value for option in OPTIONS if option.name == "socket" for value in default_values(option)]
    yield "Socket option defaults:"
    yield f"    {'Option Name':<20}|  Accept  |   Local  |  Remote  "
    yield f"    {'-' * 20}+----------+----------+----------"
    for name in SOCKET_OPTIONS:
        cells = [_socket_default(defaults, f"{target}:{name}=") for target in "alr"]
        yield f"    {name:<20}|" + "|".join(f"{cell:^10}" for cell in cells)


def _socket_default(defaults: Sequence[str], start: str) -> str:
    return next((default.removeprefix(start) for default in defaults if default.startswith(start)), "--")


def _tls_options() -> Iterator[str]:
    yield "Supported TLS options:"
    for name in TLS_OPTIONS:
        yield f"options = {name}"


_LISTINGS: dict[str, Callable[[], Iterator[str]]] = {
    "-help": _help,
    "-version": _defaults,
    "-sockets": _sockets,
    "-options": _tls_options,
}
