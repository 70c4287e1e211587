"""From the events of a trace to what a person or a program wants to read: numbered, timed, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from culvert.trace import names
from culvert.trace.events import Closed, Direction, Endpoint, Joined, Lost, Opened, Record, TraceEvent
from culvert.trace.messages import Handshake, Message

CONNECTIONS_LIMIT = 65536
"""Most connections that are kept in mind: where the end of one was lost, it would be kept for good."""


@dataclass(frozen=True, slots=True)
class Start:
    """From here on a process of the service is seen; `missed` connections had begun before, and are not."""

    process: int
    missed: int


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that began; `ident` is what the log calls it, where there is one."""

    number: int
    service: str
    client: Endpoint
    server: Endpoint
    wall: float
    ident: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """What an alert says (RFC 8446, 6)."""

    level: str
    description: str


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record: `time` is in seconds since its connection began, `since_last` since the record before it.

    `type` is the type in clear, and `inner` the one inside the encryption, where that is another. `length` is
    as in the header, `size` that of the plain text, None where that is not known.
    """

    connection: int
    number: int
    time: float
    since_last: float
    direction: Direction
    version: str
    type: str
    inner: str | None
    length: int
    size: int | None
    messages: tuple[Message, ...]
    alert: Alert | None
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """A connection that is over, `time` seconds after it began."""

    connection: int
    time: float


@dataclass(frozen=True, slots=True)
class Gap:
    """So many events are missing here."""

    count: int


Shown = Start | Connection | ShownRecord | End | Gap


@dataclass(slots=True)
class _State:
    number: int
    began: float
    last: float
    records: int = 0
    handshake: Handshake = field(default_factory=Handshake)


class Dissector:
    """Reads the events of any number of connections, in their order."""

    def __init__(self) -> None:
        self._connections: dict[str, _State] = {}
        self._count = 0

    def read(self, event: TraceEvent) -> Shown | None:
        """What there is to show of an event, if anything."""
        match event:
            case Joined():
                return Start(event.process, event.missed)
            case Opened():
                self._connections.pop(event.connection, None)
                state = self._state(event.connection, event.time)
                return Connection(
                    state.number, event.service, event.client, event.server, event.wall, event.ident
                )
            case Record():
                return self._record(event, self._state(event.connection, event.time))
            case Closed():
                state = self._state(event.connection, event.time)
                del self._connections[event.connection]
                return End(state.number, event.time - state.began)
            case Lost():
                return Gap(event.count)
        return None

    def _state(self, connection: str, now: float) -> _State:
        state = self._connections.get(connection)
        if state is None:
            if len(self._connections) >= CONNECTIONS_LIMIT:
                del self._connections[next(iter(self._connections))]
            self._count += 1
            state = self._connections[connection] = _State(self._count, now, now)
        return state

    def _record(self, event: Record, state: _State) -> ShownRecord:
        state.records += 1
        since, state.last = event.time - state.last, event.time
        inner = None if event.inner in (None, event.type) else event.inner
        meant = event.type if inner is None else inner
        datagram = event.version in names.DTLS
        return ShownRecord(
            state.number,
            state.records,
            event.time - state.began,
            since,
            event.direction,
            "" if meant == names.NOT_A_RECORD else names.version(event.version),
            names.named(names.CONTENT_TYPES, event.type, 2),
            None if inner is None else names.named(names.CONTENT_TYPES, inner, 2),
            event.length,
            None if event.opaque else event.size,
            tuple(state.handshake.read(message, datagram=datagram) for message in event.messages),
            _alert(event.content) if meant == names.ALERT and not event.opaque else None,
            event.content if meant == names.APPLICATION_DATA else b"",
        )


def _alert(content: bytes) -> Alert | None:
    if len(content) != 2:
        return None
    level, description = content
    return Alert(names.named(names.ALERT_LEVELS, level, 2), names.named(names.ALERTS, description, 2))


def as_object(shown: Shown) -> dict[str, object]:
    """What is shown as an object for JSON; docs/trace.md has its fields."""
    match shown:
        case Start():
            return {"event": "joined", "process": shown.process, "missed": shown.missed}
        case Connection():
            return {
                "event": "opened",
                "connection": shown.number,
                "id": shown.ident,
                "service": shown.service,
                "client": list(shown.client),
                "server": list(shown.server),
                "wall": shown.wall,
            }
        case ShownRecord():
            return _record_object(shown)
        case End():
            return {"event": "closed", "connection": shown.connection, "time": round(shown.time, 6)}
        case Gap():
            return {"event": "lost", "count": shown.count}


def _record_object(shown: ShownRecord) -> dict[str, object]:
    alert = shown.alert
    return {
        "event": "record",
        "connection": shown.connection,
        "record": shown.number,
        "time": round(shown.time, 6),
        "since_last": round(shown.since_last, 6),
        "direction": shown.direction.value,
        "version": shown.version,
        "type": shown.type,
        "inner": shown.inner,
        "length": shown.length,
        "size": shown.size,
        "messages": [
            {"name": one.name, "length": one.length, "fields": one.fields, "fault": one.fault}
            for one in shown.messages
        ],
        "alert": None if alert is None else {"level": alert.level, "description": alert.description},
        "data": shown.data.hex(),
    }
