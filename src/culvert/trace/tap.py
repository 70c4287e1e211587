"""The tap on one connection's engine: makes events of what OpenSSL says and of the bytes that pass.

OpenSSL tells of a record when its header is made or read, then of its type inside the encryption, then of the
messages in it; the plain text of application data is seen by who reads and writes it. So what belongs to a
record is gathered until the engine's call is over, and becomes one event (`settle`). What came from the
network is told no earlier than that, so that the secrets that open it stand before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from culvert.trace.events import Closed, Direction, Record, Secret, TraceEvent, Wire
from culvert.trace.names import ALERT, APPLICATION_DATA, HANDSHAKE

RECORD_HEADER = 256
INNER_TYPE = 257
"""What OpenSSL calls a record's header and its inner type among the types of content (SSL3_RT_HEADER,
SSL3_RT_INNER_CONTENT_TYPE of openssl/ssl3.h)."""

_FRAGMENT = 16 * 1024
"""Bytes of plain text that go into one record as long as there are more."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What of a connection is asked for beyond its records and handshake messages.

    `data`: the plain text. `wire`: the bytes on the network. `secrets`: what it takes to decrypt them.
    """

    data: bool = False
    wire: bool = False
    secrets: bool = False

    def __or__(self, other: Wants) -> Wants:
        return Wants(self.data or other.data, self.wire or other.wire, self.secrets or other.secrets)


@dataclass(slots=True)
class _Pending:
    """A record of which more may be said before the engine's call is over."""

    time: float
    direction: Direction
    version: int
    type: int
    length: int
    header: int
    inner: int | None = None
    messages: list[bytes] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    size: int = 0

    @property
    def carries_data(self) -> bool:
        return (self.type if self.inner is None else self.inner) == APPLICATION_DATA

    def event(self, connection: str) -> Record:
        return Record(
            connection,
            self.time,
            self.direction,
            self.version,
            self.type,
            self.length,
            self.inner,
            tuple(self.messages),
            bytes(self.content),
            self.size,
            # Application data by its outer type, of which nobody has seen more: it was not decrypted.
            opaque=self.type == APPLICATION_DATA and self.inner is None and not self.size,
            header=self.header,
        )


class Tap:
    """Gathers what is said of one connection. Its methods are called by the engine, and raise nothing."""

    __slots__ = (
        "_announced",
        "_clock",
        "_connection",
        "_emit",
        "_fed",
        "_offsets",
        "_received",
        "_records",
        "_sent",
        "wants",
    )

    def __init__(
        self,
        connection: str,
        wants: Wants,
        emit: Callable[[TraceEvent], None],
        clock: Callable[[], float],
        *,
        server: bool,
    ) -> None:
        """`server` is the role of the engine; `clock` gives seconds of the monotonic clock."""
        self._connection = connection
        self._emit = emit
        self._clock = clock
        self._received = Direction.TO_SERVER if server else Direction.TO_CLIENT
        self._sent = self._received.reverse
        self._records: list[_Pending] = []
        self._fed: list[Wire] = []
        self._announced = 0
        self._offsets = {self._received: 0, self._sent: 0}
        self.wants = wants

    def wire(self, data: memoryview, *, sent: bool) -> None:
        """Bytes that have come from the network, or are to be sent to it."""
        direction = self._sent if sent else self._received
        if self.wants.wire and len(data):
            event = Wire(self._connection, self._clock(), direction, self._offsets[direction], bytes(data))
            if sent:
                self._emit(event)
            else:
                self._fed.append(event)
        self._offsets[direction] += len(data)

    def spoke(self, kind: int, data: bytes, *, sent: bool) -> None:
        """What OpenSSL says to a message callback: a type of content, and the bytes of it."""
        direction = self._sent if sent else self._received
        if kind == RECORD_HEADER and len(data) >= 5:
            version, length = int.from_bytes(data[1:3], "big"), int.from_bytes(data[-2:], "big")
            self._records.append(_Pending(self._clock(), direction, version, data[0], length, len(data)))
            if not sent:
                self._announced += len(data) + length
            return
        record = self._last(direction)
        if record is None:
            return
        if kind == INNER_TYPE and data:
            record.inner = data[0]
        elif kind == HANDSHAKE:
            record.messages.append(data)
            record.size += len(data)
        elif kind == ALERT:
            record.content += data
            record.size += len(data)

    def read(self, data: bytes) -> None:
        """Plain text that was read: it is of the last record that came."""
        record = self._last(self._received)
        if record is not None:
            self._add(record, data)

    def written(self, data: bytes) -> None:
        """Plain text that was written: it is in the records of application data that are to be sent."""
        records = [one for one in self._records if one.direction is self._sent and one.carries_data]
        if not records:
            return
        share = _FRAGMENT if len(records) == -(-len(data) // _FRAGMENT) else len(data)
        for record in records:
            self._add(record, data[:share])
            data = data[share:]

    def settle(self) -> None:
        """The engine's call is over: nothing more will be said of the records so far, but for one of which
        only a part has come.
        """
        fed, self._fed = self._fed, []
        for event in fed:
            self._emit(event)
        is_cut_off = self._announced > self._offsets[self._received]
        unfinished = self._last(self._received) if is_cut_off else None
        records, self._records = self._records, []
        for record in records:
            if record is unfinished:
                self._records.append(record)
            else:
                self._emit(record.event(self._connection))

    def secret(self, line: str) -> None:
        """A line of a key log."""
        if self.wants.secrets:
            self._emit(Secret(self._connection, self._clock(), line))

    def close(self) -> None:
        """The connection is over."""
        self._announced = 0  # what is unfinished stays so
        self.settle()
        self._emit(Closed(self._connection, self._clock()))

    def _last(self, direction: Direction) -> _Pending | None:
        return next((one for one in reversed(self._records) if one.direction is direction), None)

    def _add(self, record: _Pending, data: bytes) -> None:
        record.size += len(data)
        if self.wants.data:
            record.content += data
