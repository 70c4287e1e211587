"""Real sessions between two engines in memory, each with a tap, and what the taps told."""

from __future__ import annotations

from collections.abc import Iterable

from culvert.tls.context import TlsContext
from culvert.trace import Direction, Record, Secret, Subscription, TraceEvent, Tracing, Wants, Wire
from culvert.trace.messages import Handshake, Message

from ..tls.ends import Pair

ALL = Wants(data=True, wire=True, secrets=True)


class Watched:
    """A client and a server that are both traced; `seen` has what was told of each."""

    def __init__(
        self, client: TlsContext, server: TlsContext, wants: Wants = ALL, server_name: str | None = None
    ) -> None:
        self._tracing = {"client": Tracing(), "server": Tracing()}
        self._subscriptions: dict[str, Subscription] = {
            end: tracing.subscribe(wants, lambda: None, limit=1 << 26)
            for end, tracing in self._tracing.items()
        }
        taps = tuple(
            tracing.tap(end, "tunnel", None, server=end == "server") for end, tracing in self._tracing.items()
        )
        self.pair = Pair(client, server, server_name, (taps[0], taps[1]))
        self._seen: dict[str, list[TraceEvent]] = {"client": [], "server": []}

    def seen(self, end: str) -> list[TraceEvent]:
        """All events of one end so far."""
        self._seen[end] += self._subscriptions[end].take()
        return self._seen[end]

    def records(self, end: str) -> list[Record]:
        return [event for event in self.seen(end) if isinstance(event, Record)]

    def secrets(self, end: str) -> list[str]:
        return [event.line for event in self.seen(end) if isinstance(event, Secret)]

    def wire(self, end: str, direction: Direction) -> bytes:
        """The bytes of one direction, as this end has seen them cross."""
        return b"".join(
            event.data for event in self.seen(end) if isinstance(event, Wire) and event.direction is direction
        )


def messages(records: Iterable[Record]) -> list[Message]:
    """The handshake messages of these records, read."""
    handshake = Handshake()
    return [handshake.read(message) for record in records for message in record.messages]


def of(records: Iterable[Record], direction: Direction) -> list[Record]:
    return [record for record in records if record.direction is direction]
