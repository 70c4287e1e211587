"""What can be seen of a connection in the bytes that cross the network: its records, and what is in clear.

Of each direction the records are cut out of the stream (RFC 8446, 5.1), and the handshake messages put
together again, until a record that is encrypted says that there are no more: in TLS 1.2 behind
ChangeCipherSpec, in TLS 1.3 by its type. What is said before the first record, as with STARTTLS, is passed
over; bytes behind one that are none are shown as such, and end it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from culvert.trace.events import Direction, Record
from culvert.trace.names import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CONTENT_TYPES,
    HANDSHAKE,
    NOT_A_RECORD,
)

_HEADER = 5
_RECORD_LIMIT = 2**14 + 2048
"""Longest record (RFC 5246, 6.2.3)."""

_FIRST = re.compile(rb"[\x15\x16]\x03[\x00-\x04]")
"""How the first record begins: an alert's or a handshake's type, and a version."""

_FIRST_LENGTH = 3

MESSAGE_LIMIT = 256 * 1024
"""Longest handshake message that is put together; long certificate chains are below 100 kB."""


class WireDirection:
    """One direction of a connection: `feed` it, in pieces of any size."""

    def __init__(self, connection: str, direction: Direction) -> None:
        self._connection = connection
        self._direction = direction
        self._waiting = bytearray()
        self._handshake = bytearray()
        self._encrypted = False
        self._started = False
        self._broken = False

    def feed(self, data: bytes, now: float) -> Iterator[Record]:
        """The records that end in these bytes. Nothing fails."""
        if self._broken:
            return
        self._waiting += data
        if not self._started:
            self._find_first()
        while self._started and len(self._waiting) >= _HEADER:
            kind = self._waiting[0]
            version = int.from_bytes(self._waiting[1:3], "big")
            length = int.from_bytes(self._waiting[3:5], "big")
            if kind not in CONTENT_TYPES or version >> 8 != 3 or length > _RECORD_LIMIT:
                self._broken = True
                yield Record(
                    self._connection,
                    now,
                    self._direction,
                    version,
                    NOT_A_RECORD,
                    len(self._waiting),
                    opaque=True,
                )
                self._waiting.clear()
                self._handshake.clear()
                return
            end = _HEADER + length
            if len(self._waiting) < end:
                return
            body = bytes(self._waiting[_HEADER:end])
            del self._waiting[:end]
            yield self._record(now, version, kind, body)

    def _find_first(self) -> None:
        found = _FIRST.search(self._waiting)
        self._started = found is not None
        passed = found.start() if found is not None else max(0, len(self._waiting) - _FIRST_LENGTH + 1)
        del self._waiting[:passed]

    def _record(self, now: float, version: int, kind: int, body: bytes) -> Record:
        messages: tuple[bytes, ...] = ()
        content = b""
        if kind == HANDSHAKE and _is_hello(body):
            self._encrypted = False
        opaque = self._encrypted or kind == APPLICATION_DATA
        if kind == CHANGE_CIPHER_SPEC:
            self._encrypted = True
            opaque = False
        elif kind == ALERT and len(body) != 2:
            opaque = True
        elif not opaque and kind == HANDSHAKE:
            messages = self._complete(body)
        elif kind == ALERT and not opaque:
            content = body
        size = 0 if opaque else len(body)
        return Record(
            self._connection,
            now,
            self._direction,
            version,
            kind,
            len(body),
            messages=messages,
            content=content,
            size=size,
            opaque=opaque,
        )

    def _complete(self, body: bytes) -> tuple[bytes, ...]:
        """The handshake messages that end with this record."""
        self._handshake += body
        found = []
        while len(self._handshake) >= 4:
            end = 4 + int.from_bytes(self._handshake[1:4], "big")
            if end > MESSAGE_LIMIT:
                self._handshake.clear()
                self._encrypted = True  # what follows cannot be told apart any more
            if len(self._handshake) < end:
                break
            found.append(bytes(self._handshake[:end]))
            del self._handshake[:end]
        return tuple(found)


def _is_hello(body: bytes) -> bool:
    """Whether this is a hello in clear: the second one of TLS 1.3 may stand behind a ChangeCipherSpec that
    means nothing (RFC 8446, D.4).
    """
    return body[:1] in (b"\x01", b"\x02") and int.from_bytes(body[1:4], "big") == len(body) - 4
