"""Whether a server still knows of a link: asked where somebody says that it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STRANGER = b"\x3f"
"""What a server says of a datagram that is no client's. Anybody can say it, so it only makes a client ask."""

TRIES = 3
"""How often it asks: with no answer the link is over."""

PAUSE = 1.0
"""Seconds between."""


class Doubt:
    """One link's. `ask` sends what the peer answers; `give_up` is called where it has not."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ask: Callable[[], None], give_up: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._ask, self._give_up = ask, give_up
        self._timer: asyncio.TimerHandle | None = None
        self.pause = PAUSE
        self.heard = False
        """To be set to True with each record of the peer's."""

    def begin(self) -> None:
        """Somebody says so."""
        if self._timer is None:
            self._go_on(TRIES)

    def close(self) -> None:
        """It does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self, tries: int) -> None:
        self._timer = None
        if self.heard and tries < TRIES:
            return
        if not tries:
            self._give_up()
            return
        self.heard = False
        self._timer = self._loop.call_later(self.pause, self._go_on, tries - 1)
        self._ask()
