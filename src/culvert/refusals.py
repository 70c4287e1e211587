"""What is turned away: all of it counted, and the log told of it without being flooded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from culvert.errors import PeerError
from culvert.log import Channel, Level
from culvert.metrics import Family

INTERVAL = 1.0
"""Seconds between two lines for the same reason: whoever is refused may come back as fast as he likes."""


class RefusedError(PeerError):
    """A connection is turned away before its handshake; `key` is the word that `Refusals` counts it by."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key

    def line(self, service: str, peer: str) -> str:
        """What the log says of it."""
        return f"Service [{service}] refused connection from {peer}: {self}"


class Refusals:
    """What the connections of one service are refused for, or the packets of a VPN.

    A reason is a short word of Culvert's own (`denied`, `full`), never a peer's: it names a counter, and
    there is a fixed number of them.
    """

    def __init__(self, log: Channel, counted: Family, clock: Callable[[], float]) -> None:
        """`counted` has the numbers by reason; `clock` gives seconds that never go back."""
        self._log = log
        self._counted = counted
        self._clock = clock
        self._next_line: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def refuse(self, reason: str, text: str, log: Channel | None = None) -> bool:
        """Count a refusal, and log `text` (by `log` where that is given) or have the next line tell of it.

        Whether it was logged: who tells of it elsewhere does that as rarely.
        """
        self._counted[reason] += 1
        now = self._clock()
        if now < self._next_line.get(reason, now):
            self._left_out[reason] += 1
            return False
        self._next_line[reason] = now + INTERVAL
        left_out = self._left_out.pop(reason, 0)
        more = f" ({left_out} more like it since the last such line)" if left_out else ""
        (log or self._log).write(Level.WARNING, text + more)
        return True
