"""Whether a server still hears a link: asked where somebody says that it does not, and while packets go.

Only what the peer answers to this end's own probes counts. That it is heard itself says nothing of the other
direction: a way can be shut in one alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STRANGER = b"\x3f"
"""What a server says of a datagram that is no client's. Anybody can say it, so it only makes a client ask."""

TRIES = 3
"""How often it asks where it is told so: with no answer the link is over."""

TRIES_UNTOLD = 4
"""And where nobody says anything: a queue on the way may be a few seconds long."""

PAUSE = 1.0
"""Seconds between."""

LOOK = 2.0
"""Seconds between looks whether packets went, and none of its probes was answered meanwhile."""


class Doubt:
    """One link's. `ask` sends what the peer answers; `give_up` is called where it has not, with whether it
    was told so.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ask: Callable[[], None], give_up: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._ask, self._give_up = ask, give_up
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._carried: Callable[[], int] = lambda: 0
        self._before = 0
        self._told = False
        self.pause, self.look = PAUSE, LOOK
        self.answered = False
        """To be set to True with each answer to a probe of this end's."""

    def begin(self) -> None:
        """Somebody says so."""
        self._told = True
        if self._timer is None:
            self._question(TRIES)

    def watch(self, carried: Callable[[], int]) -> None:
        """Ask while packets go: `carried` is a number that is another one once some went."""
        self._carried = carried
        self._looking = self._loop.call_later(self.look, self._look)

    def close(self) -> None:
        """It does not matter any more."""
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()

    def _look(self) -> None:
        self._looking = self._loop.call_later(self.look, self._look)
        before, self._before = self._before, self._carried()
        if self._before != before and self._timer is None:
            self._told = False
            self._question(TRIES_UNTOLD)

    def _question(self, tries: int) -> None:
        self.answered = False
        self._go_on(tries)

    def _go_on(self, tries: int) -> None:
        self._timer = None
        if self.answered:
            return
        if not tries:
            self._give_up(self._told)
            return
        self._timer = self._loop.call_later(self.pause, self._go_on, tries - 1)
        self._ask()
