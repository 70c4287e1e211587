"""The command line of `culvert trace`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from culvert.cli.faults import CONFIGURATION_STATUS, say
from culvert.cli.trace import passive, tunnel
from culvert.cli.trace.output import Output
from culvert.cli.trace.tunnel import Ends
from culvert.errors import ConfigurationError, os_reason
from culvert.trace import FormatError, TraceEvent, Wants, from_line
from culvert.trace.events import LINE_LIMIT

_USAGE_STATUS = 2


def trace(  # noqa: PLR0917 - Typer gives them by name
    listen: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Where clients connect to; port 0 for any.")
    ] = None,
    connect: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The server.")] = None,
    cert: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Be the clients' TLS server, with this certificate and chain."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its private key; left out: it is in the same file.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Be a TLS client of the server.")] = False,
    client_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A service option for the TLS towards the clients."),
    ] = None,
    server_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A service option for the TLS towards the server."),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="Show the plain text too.")] = False,
    pcap: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write a capture for Wireshark, with the sessions' secrets."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    read: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Show a stream of events that a service gave; - for its output."),
    ] = None,
) -> None:
    """Show the TLS of connections, record by record: as a relay in between, or from a running service.

    With --cert or --tls (or both) TLS ends here, so that everything can be read; with neither, bytes are
    passed on unchanged, and shown is what is visible from outside.
    """
    wants = Wants(data=data, wire=pcap is not None, secrets=pcap is not None)
    if (read is None) == (listen is None and connect is None) or (listen is None) != (connect is None):
        raise _misuse("Give --listen and --connect, or --read")
    if key is not None and cert is None:
        raise _misuse("--key goes with --cert")
    if (client_option and cert is None) or (server_option and not tls):
        raise _misuse("--client-option goes with --cert, and --server-option with --tls")
    with Output(as_json=as_json, data=data, capture=pcap) as output:
        if listen is None or connect is None:
            status = _read(read or "-", output)
        elif cert is not None or tls:
            ends = Ends(listen, connect, cert, key, tls, client_option or (), server_option or ())
            status = tunnel.run(ends, wants, output)
        else:
            status = passive.run(listen, connect, wants, output)
    raise typer.Exit(status)


def _misuse(text: str) -> typer.Exit:
    say(f"{text} (culvert trace --help tells more)")
    return typer.Exit(_USAGE_STATUS)


def _read(path: str, output: Output) -> int:
    if path == "-":
        return _show(sys.stdin.buffer, output)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
        except OSError as error:
            raise ConfigurationError.single(f"Cannot read {path}: {os_reason(error)}") from None
        return _show(file, output)


def _show(stream: BinaryIO, output: Output) -> int:
    try:
        for event in events(stream):
            output.show(event)
            sys.stdout.flush()
    except FormatError as error:
        say(f"This is not the trace of a service: {error}")
        return CONFIGURATION_STATUS
    return 1 if output.failed else 0


def events(stream: BinaryIO) -> Iterator[TraceEvent]:
    """The events of a stream to its end. Raises FormatError, with the number of the line."""
    number = 0
    while line := stream.readline(LINE_LIMIT + 1):
        number += 1
        try:
            yield from_line(line)
        except FormatError as error:
            raise FormatError(f"line {number}: {error}") from None
