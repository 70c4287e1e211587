"""What a trace consists of, and its form on the way from a worker to who reads it: one JSON object a line.

An event is what was seen, in bytes; what the bytes mean is its reader's business. Times are seconds of the
system's monotonic clock, which all processes of a machine share; `Opened.wall` ties it to the time of day.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LINE_LIMIT = 1024 * 1024
"""Longest line of a stream in bytes: a handshake message is at most 512 kB, a read of the network 128 kB."""

Endpoint = tuple[str, int]
"""An IP address and a port; for what has none, a description and 0."""


class FormatError(ValueError):
    """A line that is no event."""


class Direction(enum.Enum):
    """Where bytes go, whoever was traced."""

    TO_SERVER = "C>S"
    TO_CLIENT = "S>C"

    @property
    def reverse(self) -> Direction:
        return Direction.TO_CLIENT if self is Direction.TO_SERVER else Direction.TO_SERVER


@dataclass(frozen=True, slots=True)
class Joined:
    """From here on the connections that begin in this process are seen. `missed` ones of those that are asked
    for had begun before: nothing of them is seen.
    """

    time: float
    process: int
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection began. `client` and `server` are the two ends of the TLS; `connection` names it in this
    stream alone, `ident` is what the log calls it.
    """

    connection: str
    time: float
    wall: float
    service: str
    client: Endpoint
    server: Endpoint
    ident: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One record (RFC 8446, 5): `version`, `type` and `length` are as its header has them, in clear.

    `inner` is the type inside the encryption, of TLS 1.3; None where that is not known or not meant.
    `messages` are the handshake messages that end in it, whole; `content` is its plain text where that was
    asked for, or an alert; `size` the length of its plain text. Nothing is known of what an `opaque` one
    holds. `header` is the number of bytes before the length's: 5, or 13 in DTLS.
    """

    connection: str
    time: float
    direction: Direction
    version: int
    type: int
    length: int
    inner: int | None = None
    messages: tuple[bytes, ...] = ()
    content: bytes = b""
    size: int = 0
    opaque: bool = False
    header: int = 5


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes as they crossed the network; `offset` counts those before them in this direction."""

    connection: str
    time: float
    direction: Direction
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Secret:
    """A line of a key log, in NSS's format, without its end."""

    connection: str
    time: float
    line: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection is over."""

    connection: str
    time: float


@dataclass(frozen=True, slots=True)
class Lost:
    """So many events are missing here: their reader was too slow."""

    time: float
    count: int


TraceEvent = Joined | Opened | Record | Wire | Secret | Closed | Lost

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Joined, Opened, Record, Wire, Secret, Closed, Lost)
}


def to_line(event: TraceEvent) -> str:
    """The event as one line of JSON without its end: an object with `event`, the kind in lower case, and the
    fields. Bytes are in base64, a direction is `C>S` or `S>C`.
    """
    fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    return json.dumps({"event": type(event).__name__.lower(), **fields}, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Direction):
        return value.value
    raise TypeError(type(value).__name__)


def from_line(line: str | bytes) -> TraceEvent:
    """The event on a line. Raises FormatError."""
    if len(line) > LINE_LIMIT:
        raise FormatError(f"a line of more than {LINE_LIMIT} bytes")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise FormatError("a line that is not JSON") from None
    kind = _KINDS.get(str(found.pop("event", ""))) if isinstance(found, dict) else None
    if kind is None:
        raise FormatError("a line without the name of an event")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = {
        name: _typed(name, str(field.type), found[name]) for name, field in fields.items() if name in found
    }
    missing = [
        name for name, field in fields.items() if name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        raise FormatError(f"an event without {missing[0]!r}")
    event: TraceEvent = kind(**values)
    return event


def _typed(name: str, kind: str, value: object) -> object:
    """A value of an object as the field of an event, by the field's annotation."""
    try:
        return _CONVERTERS[kind](value)
    except (TypeError, ValueError):
        raise FormatError(f"an event whose {name!r} is not what it should be") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    if not 0 <= value < 1 << 53:
        raise ValueError
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    if not 0 <= value < 1e12:  # NaN is not within it either
        raise ValueError
    return float(value)


def _bytes(value: object) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _messages(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(map(_bytes, value))


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, list) or len(value) != 2 or _integer(value[1]) > 0xFFFF:
        raise TypeError
    return _text(value[0]), _integer(value[1])


_CONVERTERS: Mapping[str, Callable[[object], object]] = {
    "str": _text,
    "bool": _flag,
    "int": _integer,
    "int | None": lambda value: None if value is None else _integer(value),
    "float": _seconds,
    "bytes": _bytes,
    "tuple[bytes, ...]": _messages,
    "Direction": Direction,
    "Endpoint": _endpoint,
}
"""By the annotation of an event's field: the value of it from JSON. Each raises TypeError or ValueError."""
