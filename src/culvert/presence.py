"""Whether a client has said anything yet.

One who connects and leaves without a byte is a port scan or a health probe. Until it is known what a client
is, the lines of its connection are held back, but not for long: one that waits is to be seen.
"""

from __future__ import annotations

import asyncio

from culvert.log import Channel, Level

HOLD = 0.5
"""Seconds for which lines are held back: probes leave sooner, clients have spoken by then."""


class Presence:
    """What is known of the client of one connection."""

    __slots__ = ("_held", "_left", "_timer", "heard")

    def __init__(self, log: Channel, loop: asyncio.AbstractEventLoop, *, speaks_first: bool) -> None:
        """`speaks_first` is for a client of whom a byte must come: the lines in `log` wait for it."""
        self._left = False
        self.heard = not speaks_first
        self._held: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None
        if speaks_first:
            self._held = log
            log.hold()
            self._timer = loop.call_later(HOLD, self._release, None)

    def hear(self) -> None:
        """Bytes of the client are there."""
        if not self.heard:
            self.heard = True
            self._release(None)

    def leave(self) -> None:
        """The client's stream has ended, or is broken."""
        self._left = True

    @property
    def silent(self) -> bool:
        """Whether the client has left without a byte."""
        return self._left and not self.heard

    def settle(self) -> bool:
        """At the end: write what is still held back, for debugging only where it is of a silent client.

        True where it was: what else there is to say is for debugging only, too.
        """
        demoted = self._held is not None and self.silent
        self._release(Level.DEBUG if demoted else None)
        return demoted

    def _release(self, level: Level | None) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release(level)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
