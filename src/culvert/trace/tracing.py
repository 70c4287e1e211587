"""Who wants to see a worker's connections, and what is kept for him until he takes it.

`Tracing` is one worker's. A connection that begins while somebody is subscribed gets a tap (`tap`); one that
began before is not seen, for its handshake is over and its secrets are gone. Where nobody is subscribed, a
connection costs one look at `active`.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from culvert.trace.events import Endpoint, Lost, Opened, Record, Secret, TraceEvent, Wire
from culvert.trace.names import APPLICATION_DATA
from culvert.trace.tap import Tap, Wants

QUEUE_LIMIT = 8 * 1024 * 1024
"""Most bytes of events that wait for a subscriber: a few dozen reads of the network, and no more memory than
a busy worker has anyway."""

_EVENT_COST = 256
"""Bytes that an event counts for beside what it carries."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which connections are to be seen: those of `services`, and those that the log calls `ident`. None is
    all of them.
    """

    services: Collection[str] | None = None
    ident: str | None = None

    def includes(self, service: str, ident: str) -> bool:
        """Whether this connection is one of them."""
        return (self.services is None or service in self.services) and self.ident in (None, ident)


EVERYTHING = Choice()


class Subscription:
    """The events for one reader, as far as he wants them. `close` it."""

    def __init__(
        self, tracing: Tracing, wants: Wants, chosen: Choice, wake: Callable[[], None], limit: int
    ) -> None:
        self.wants = wants
        self.chosen = chosen
        self._tracing = tracing
        self._wake = wake
        self._limit = limit
        self._events: deque[TraceEvent] = deque()
        self._held = 0
        self._lost = 0

    def offer(self, event: TraceEvent) -> None:
        """Keep an event if it is wanted, and count it as lost where too many are kept."""
        wanted = self._wanted(event)
        if wanted is None:
            return
        cost = _cost(wanted)
        if self._held + cost > self._limit:
            self._lost += 1
            return
        self._note_loss(wanted.time)
        self._keep(wanted, cost)

    def take(self, most: float = math.inf) -> list[TraceEvent]:
        """What has come since the last time, or the first `most` bytes of it, and one event at least."""
        self._note_loss(time.monotonic())
        events: list[TraceEvent] = []
        taken = 0
        while self._events and taken < most:
            events.append(self._events.popleft())
            taken += _cost(events[-1])
        self._held -= taken
        return events

    def close(self) -> None:
        """Want nothing more."""
        self._tracing.unsubscribe(self)
        self._events.clear()

    def _note_loss(self, now: float) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._keep(Lost(now, lost), _EVENT_COST)

    def _keep(self, event: TraceEvent, cost: int) -> None:
        self._events.append(event)
        self._held += cost
        if len(self._events) == 1:
            self._wake()

    def _wanted(self, event: TraceEvent) -> TraceEvent | None:
        match event:
            case Wire() if not self.wants.wire:
                return None
            case Secret() if not self.wants.secrets:
                return None
            case Record() if not self.wants.data and event.size and event.content and _is_data(event):
                return replace(event, content=b"")
        return event


class Tracing:
    """The subscriptions to one worker's connections."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._subscriptions: list[Subscription] = []
        self._numbers = itertools.count(1)

    @property
    def active(self) -> bool:
        """Whether anybody wants to see anything."""
        return bool(self._subscriptions)

    def subscribe(
        self,
        wants: Wants,
        wake: Callable[[], None],
        chosen: Choice = EVERYTHING,
        *,
        limit: int = QUEUE_LIMIT,
    ) -> Subscription:
        """See connections that begin from now on. `wake` is called when there is something to take where
        there was nothing, from the middle of a connection's work: it may only schedule.
        """
        subscription = Subscription(self, wants, chosen, wake, limit)
        self._subscriptions = [*self._subscriptions, subscription]
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions = [one for one in self._subscriptions if one is not subscription]

    def tap(self, ident: str, service: str, stream: object, *, server: bool) -> Tap | None:
        """A tap for a connection that begins, for `context.engine`; None where nobody wants it.

        `stream` is its TLS side, `server` whether this end is the server.
        """
        readers = [one for one in self._subscriptions if one.chosen.includes(service, ident)]
        if not readers:
            return None
        wants = Wants()
        for reader in readers:
            wants |= reader.wants

        def emit(event: TraceEvent) -> None:
            for one in readers:
                if one in self._subscriptions:
                    one.offer(event)

        ours, theirs = _name(stream, "getsockname"), _name(stream, "getpeername")
        client, end = (theirs, ours) if server else (ours, theirs)
        # Unique where the log's name is not: `logId` may be a process's or a thread's.
        name = f"{os.getpid()}.{next(self._numbers)}"
        emit(Opened(name, self._clock(), time.time(), service, client, end, ident))
        return Tap(name, wants, emit, self._clock, server=server)


def _is_data(record: Record) -> bool:
    """Whether the content is application data, and no alert."""
    return (record.type if record.inner is None else record.inner) == APPLICATION_DATA


def _cost(event: TraceEvent) -> int:
    match event:
        case Record():
            return _EVENT_COST + len(event.content) + sum(map(len, event.messages))
        case Wire():
            return _EVENT_COST + len(event.data)
    return _EVENT_COST


def _name(stream: object, which: str) -> Endpoint:
    """One end of a stream's connection; the stream may be a program's or have been reset."""
    ask = getattr(stream, which, None)
    if ask is None:
        return "program", 0
    try:
        address = ask()
    except OSError:
        return "unknown", 0
    if isinstance(address, tuple):
        return str(address[0]), int(address[1])
    return "unix socket", 0
