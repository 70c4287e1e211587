"""The command line of `culvert trace`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from culvert.cli.admin_client import TOKEN_VARIABLE, find_endpoint
from culvert.cli.faults import CONFIGURATION_STATUS, say
from culvert.cli.trace import attached, passive, tunnel
from culvert.cli.trace.output import Output
from culvert.cli.trace.tunnel import Ends
from culvert.errors import ConfigurationError, os_reason
from culvert.trace import FormatError, TraceEvent, Wants, from_line
from culvert.trace.events import LINE_LIMIT

_USAGE_STATUS = 2


_Listen = Annotated[
    str | None, typer.Option(metavar="[HOST:]PORT", help="Where clients connect to; port 0 for any.")
]
_Connect = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The server.")]
_Cert = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Be the clients' TLS server, with this certificate and chain."),
]
_Key = Annotated[
    str | None, typer.Option(metavar="FILE", help="Its private key; left out: it is in the same file.")
]
_Tls = Annotated[bool, typer.Option("--tls", help="Be a TLS client of the server.")]
_ClientOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A service option for the TLS towards the clients."),
]
_ServerOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A service option for the TLS towards the server."),
]
_Attach = Annotated[
    bool, typer.Option("--attach", help="Show a daemon that runs: that of FILE, or the one at --admin.")
]
_File = Annotated[str | None, typer.Argument(metavar="[FILE]", help="With --attach: its configuration.")]
_Admin = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Its admin endpoint: a path, or [HOST:]PORT.")
]
_TokenFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help=f"The endpoint's token; else that of {TOKEN_VARIABLE} counts."),
]
_Service = Annotated[str | None, typer.Option(metavar="NAME", help="With --attach: this service only.")]
_Connection = Annotated[
    str | None, typer.Option(metavar="ID", help="With --attach: what the log calls ID, only.")
]
_Count = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="With --attach: end after so many records.")
]
_Duration = Annotated[
    float | None, typer.Option(metavar="SECONDS", min=0, help="With --attach: end after this time.")
]
_Data = Annotated[bool, typer.Option("--data", help="Show the plain text too.")]
_Pcap = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write a capture for Wireshark, with the sessions' secrets."),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
_Read = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Show a stream of events that a service gave; - for its output."),
]


def trace(  # noqa: PLR0917 - Typer gives them by name
    file: _File = None,
    listen: _Listen = None,
    connect: _Connect = None,
    cert: _Cert = None,
    key: _Key = None,
    tls: _Tls = False,
    client_option: _ClientOption = None,
    server_option: _ServerOption = None,
    attach: _Attach = False,
    admin: _Admin = None,
    token_file: _TokenFile = None,
    service: _Service = None,
    connection: _Connection = None,
    count: _Count = None,
    duration: _Duration = None,
    data: _Data = False,
    pcap: _Pcap = None,
    as_json: _Json = False,
    read: _Read = None,
) -> None:
    """Show the TLS of connections, record by record: as a relay in between, or from a running service.

    With --cert or --tls (or both) TLS ends here, so that everything can be read; with neither, bytes are
    passed on unchanged, and shown is what is visible from outside. With --attach, connections of a running
    daemon are shown, where its configuration has trace = yes.
    """
    wants = Wants(data=data, wire=pcap is not None, secrets=pcap is not None)
    sources = (read is not None, listen is not None or connect is not None, attach)
    if sum(sources) != 1 or (listen is None) != (connect is None):
        raise _misuse("Give --listen and --connect, or --attach, or --read")
    given = (file, admin, token_file, service, connection, count, duration)
    if not attach and any(one is not None for one in given):
        raise _misuse("A configuration, --admin and what chooses of it go with --attach")
    if attach and (file is None) == (admin is None):
        raise _misuse("--attach takes a configuration file, or --admin and the address of its endpoint")
    if key is not None and cert is None:
        raise _misuse("--key goes with --cert")
    if (client_option and cert is None) or (server_option and not tls):
        raise _misuse("--client-option goes with --cert, and --server-option with --tls")
    if (cert is not None or tls) and listen is None:
        raise _misuse("--cert and --tls go with --listen and --connect")
    where = find_endpoint(file, admin, token_file) if attach else None
    with Output(as_json=as_json, data=data, capture=pcap) as output:
        if where is not None:
            chosen = attached.Chosen(service, connection, wants)
            status = attached.run(where, chosen, attached.Bounds(count, duration), output)
        elif listen is None or connect is None:
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
