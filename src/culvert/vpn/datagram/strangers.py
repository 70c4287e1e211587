"""Datagrams of nobody that is known: who is told so, and when there are so many that the log has it.

Times are seconds of any one monotonic clock.
"""

from __future__ import annotations

from culvert.admission import network
from culvert.vpn.datagram.udp import SocketAddress

PAUSE = 0.05
"""Seconds, at least, between two answers to one network: a client asks until it has one."""

REMEMBERED = 1024
"""Networks whose last answer is remembered."""

ANSWERS = 1000
"""Answers in a second, to all together."""

FLOOD = 200
"""Datagrams in a second of which the log tells: the clients of a server that has crashed send fewer."""


class Strangers:
    """Those at one port."""

    def __init__(self) -> None:
        self._told: dict[bytes, float] = {}
        self._second = 0
        self._answers = self._came = 0

    def came(self, now: float) -> bool:
        """One more; whether that makes them many, which it does once in a second."""
        if int(now) != self._second:
            self._second, self._came, self._answers = int(now), 0, 0
        self._came += 1
        return self._came == FLOOD

    def may_be_told(self, peer: SocketAddress, now: float) -> bool:
        """Whether this one, which `came`, is to be answered."""
        origin = network(peer)
        if self._answers >= ANSWERS or now - self._told.get(origin, -PAUSE) < PAUSE:
            return False
        self._answers += 1
        self._told.pop(origin, None)
        self._told[origin] = now
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return True
