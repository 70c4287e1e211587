"""A trace as text: a line for each record, what is in it below. Nothing of it commands the terminal."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator

from culvert.cli.faults import printable
from culvert.trace.dissection import Connection, End, Gap, Shown, ShownRecord, Start
from culvert.trace.events import Endpoint
from culvert.trace.extensions import Field
from culvert.trace.messages import Message

_WIDTH = 110
_BYTES_IN_LINE = 16


def lines(shown: Shown) -> Iterator[str]:
    """The lines for one thing to show, without their ends."""
    match shown:
        case Start():
            missed = f": {shown.missed} connection(s) had begun before, and cannot be shown"
            yield f"(process {shown.process} is seen from here on{missed if shown.missed else ''})"
        case Connection():
            began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(shown.wall))
            yield printable(
                f"Connection {shown.number}: {_end(shown.client)} to {_end(shown.server)}, "
                f"service [{shown.service}]{f', {shown.ident} in the log' if shown.ident else ''}, {began}"
            )
        case ShownRecord():
            yield from _record(shown)
        case End():
            yield f"{shown.connection}     {shown.time:.6f} closed"
        case Gap():
            yield f"({shown.count} event(s) lost here)"


def _end(endpoint: Endpoint) -> str:
    return f"{endpoint[0]}:{endpoint[1]}" if endpoint[1] else endpoint[0]


def _record(shown: ShownRecord) -> Iterator[str]:
    kind = shown.type if shown.inner is None else f"{shown.type} ({shown.inner})"
    what = f"{shown.version} {kind}, {shown.length} bytes".lstrip()
    if shown.size is None and shown.version:
        what += ", encrypted"
    yield (
        f"{shown.connection} {shown.number:<3} {shown.time:.6f} ({shown.since_last:.6f}) "
        f"{shown.direction.value} {what}"
    )
    if shown.alert is not None:
        yield f"    {shown.alert.level}: {shown.alert.description}"
    for message in shown.messages:
        yield from _message(message)
    yield from hexadecimal(shown.data)


def _message(message: Message) -> Iterator[str]:
    yield f"    {message.name}, {message.length} bytes"
    yield from _fields(message.fields, "      ")
    if message.fault is not None:
        yield f"      malformed: {message.fault}"


def _fields(fields: dict[str, Field], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        if not value and value != 0:
            yield f"{indent}{name}: none"
        elif isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _fields(value, indent + "  ")
        else:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            yield from textwrap.wrap(
                printable(f"{name}: {text}"),
                _WIDTH,
                initial_indent=indent,
                subsequent_indent=indent + "    ",
                break_on_hyphens=False,
            )


def hexadecimal(data: bytes) -> Iterator[str]:
    """Bytes in hexadecimal and ASCII, sixteen a line."""
    for start in range(0, len(data), _BYTES_IN_LINE):
        part = data[start : start + _BYTES_IN_LINE]
        seen = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"    {start:04x}  {part.hex(' '):<{3 * _BYTES_IN_LINE}} {seen}"
