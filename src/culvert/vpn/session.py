"""One peer of a VPN: it greets, it is alive or not, and its packets are its own.

A session is the receiver of one transport. What it may do is for its `Part` to say, the server's or the
client's; whose packets they are, for the hub.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from culvert.config.vpn import IpAddress
from culvert.log import Channel
from culvert.vpn.directory import Directory
from culvert.vpn.hello import Hello, decode
from culvert.vpn.tally import Drop
from culvert.vpn.transport import FrameError, Kind, Transport

MISSES = 3
"""Intervals of silence after which a peer is given up: as many probes have stayed without an answer."""

GREETING = 15.0
"""Seconds for the peer's HELLO: a client that says nothing must not hold a place for ever."""

WATCH = 20.0
"""Seconds between looks at a session where nothing is probed."""

RENEW_AFTER = 24 * 3600.0
"""Seconds after which a link is replaced by one with new keys."""

END_AFTER = RENEW_AFTER + 2 * 3600.0
"""Seconds after which a server ends a link whose client has made no other: it must prove anew who it is."""

REASON_LIMIT = 200
"""Characters of a peer's reason that are logged."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the transport has found the peer to be.

    `shown` is for the log. `names` are those of a certificate that was verified. `outer` is where it is in
    the network that carries the VPN.
    """

    shown: str
    names: tuple[str, ...] = ()
    outer: IpAddress | None = None


class Part(Protocol):
    """What a server and a client do differently."""

    def begin(self, session: Session) -> None:
        """The link is there."""

    def meet(self, session: Session, hello: Hello) -> None:
        """The peer has introduced itself. Raises MeetingError where the two cannot go together."""

    def leave(self, session: Session) -> None:
        """A session is over that has been met."""


class Owner(Protocol):
    """Whose sessions they are: the hub."""

    def deliver(self, session: Session, frame: memoryview, offloaded: bool) -> None:
        """A packet has come."""

    def pump(self) -> None:
        """All packets of one read have been delivered."""

    def resume(self) -> None:
        """A transport has room again, or it is time to look whether a session is due to be renewed."""

    def met(self, session: Session) -> None:
        """A session has been met."""

    def refused(self, session: Session) -> None:
        """Its peer does not fit, and is told so."""

    def dropped(self, why: Drop, number: int) -> None:
        """Packets could not be carried, or were none."""

    def forget(self, session: Session) -> None:
        """A session is over, met or not."""


class MeetingError(Exception):
    """The two ends cannot go together; the text, which the peer is told as well, says why."""


class Session:
    """One peer, from its link's beginning to its end."""

    def __init__(
        self,
        part: Part,
        transport: Transport,
        peer: Peer,
        log: Channel,
        owner: Owner,
    ) -> None:
        self._part = part
        self.transport = transport
        self.peer = peer
        self.log = log
        self._owner = owner
        self._deliver = owner.deliver
        self.delivered = owner.pump
        """Of `Receiver`."""
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self.sources: Directory[Session] = Directory()
        """What the peer may send from."""
        self.passed: set[bytes] = set()
        """Sources and destinations, one behind the other, that were found to be permitted."""
        self.hello: Hello | None = None
        """The peer's."""
        self.addresses: tuple[IpAddress, ...] = ()
        """The peer's in the VPN, once it was met."""
        self.over = False
        self.expires = False
        """Whether it is ended when it is long past its time: as a server does."""
        self._heard = False
        self._misses = 0
        self._keepalive: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, keepalive: float | None) -> None:
        """Greet or be greeted; probe the peer after so many seconds of silence, where that is not None."""
        self._keepalive = keepalive
        self._timer = self._loop.call_later(GREETING, self._not_greeted)
        self._part.begin(self)

    def say(self, hello: Hello) -> None:
        """Introduce this end."""
        self.transport.send_message(Kind.HELLO, hello.encode())

    def part(self, reason: str) -> None:
        """End the link, and tell the peer why."""
        if not self.over:
            self.transport.send_message(Kind.BYE, reason.encode("utf-8", "replace")[:REASON_LIMIT])
            self.transport.close()

    @property
    def due(self) -> bool:
        """Whether it is time for a link with new keys."""
        return self.transport.worn or self._loop.time() - self.started > RENEW_AFTER

    @property
    def overdue(self) -> bool:
        """Whether that was long ago."""
        return self.transport.overdue or self._loop.time() - self.started > END_AFTER

    # --- of `Receiver` ---

    def take_message(self, kind: Kind, body: bytes) -> None:
        # A PING shows that the way from the peer is open, and not the way to it: that is for a PONG to show.
        self._heard = self._heard or kind is not Kind.PING
        match kind:
            case Kind.HELLO:
                self._meet(body)
            case Kind.PING if self.hello is not None:
                self.transport.send_message(Kind.PONG, body)
            case Kind.BYE:
                reason = body[: REASON_LIMIT * 4].decode("utf-8", "replace")[:REASON_LIMIT]
                self.log.notice(f"VPN: {self.peer.shown} takes its leave: {reason or 'no reason given'}")
                self.transport.close()

    def take_packet(self, frame: memoryview, offloaded: bool) -> None:
        self._heard = True
        self._deliver(self, frame, offloaded)

    def ready_again(self) -> None:
        self._owner.resume()

    def dropped(self, why: Drop, number: int = 1) -> None:
        self._owner.dropped(why, number)

    def ended(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        if self.hello is not None:
            self._part.leave(self)
        self._owner.forget(self)

    # --- the first message, and signs of life ---

    def _meet(self, body: bytes) -> None:
        if self.hello is not None:
            raise FrameError("a second HELLO")
        self.hello = decode(body)
        try:
            self._part.meet(self, self.hello)
        except MeetingError as error:
            self.hello = None
            self._owner.refused(self)
            self.log.error(f"VPN: {self.peer.shown} is refused: {error}")
            self.part(str(error))
            return
        self._owner.met(self)
        if self._timer is not None:
            self._timer.cancel()
        self._watch()

    def _not_greeted(self) -> None:
        self.log.error(f"VPN: no HELLO of {self.peer.shown} within {GREETING:g} s")
        self.transport.abort("no HELLO")

    def _watch(self) -> None:
        self._timer = self._loop.call_later(self._keepalive or WATCH, self._look)

    def _look(self) -> None:
        """Whether the peer has said anything since the last look."""
        if self._heard:
            self._heard, self._misses = False, 0
        elif self._keepalive is not None:
            self._misses += 1
            if self._misses > MISSES:
                silence = self._keepalive * self._misses
                self.log.error(f"VPN: {self.peer.shown} gives no sign of life for {silence:g} s")
                self.transport.abort(f"no sign of life for {silence:g} s")
                return
            self.transport.send_message(Kind.PING, b"")
        if self.expires and self.overdue:
            self.log.notice(f"VPN: the link of {self.peer.shown} is ended, for its keys are long worn")
            self.part("the keys are worn: make a new link")
            return
        if self.due:
            self._owner.resume()
        self._watch()
