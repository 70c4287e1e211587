"""A VPN's client connects again and again: at growing intervals, and before its keys are worn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

FIRST_PAUSE = 0.1
"""Seconds, at most, before a link that has ended is made again: its server may just have been reloaded."""

LONGEST_PAUSE = 30.0

SETTLED = 10.0
"""Seconds for which a link must have been up for the pauses to begin anew: two clients with one address
would put each other out as fast as they can connect."""


class Backoff:
    """Pauses between attempts: each twice as long as the one before, and half of each by chance, so that a
    thousand clients do not come back at once.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._next = FIRST_PAUSE

    def pause(self) -> float:
        """How many seconds to wait now."""
        longest, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return longest * (0.5 + self._draw() / 2)

    def reset(self) -> None:
        """It has gone well."""
        self._next = FIRST_PAUSE


class Redial:
    """Keeps a link to the server: `run` it; `met` and `renew` tell it how its links fare."""

    def __init__(self, launch: Callable[[], asyncio.Task[None]], backoff: Backoff | None = None) -> None:
        """`launch` begins a connection, whose task ends with it and raises nothing."""
        self._launch = launch
        self._backoff = backoff or Backoff()
        self._met = asyncio.Event()
        self._due = asyncio.Event()

    def met(self) -> None:
        """The newest link has met its server."""
        self._met.set()

    def renew(self) -> None:
        """The newest link is worn: make another one beside it."""
        self._due.set()

    async def run(self) -> None:
        """Until it is cancelled. A link that is replaced lives on until the new one has met the server."""
        loop = asyncio.get_running_loop()
        current: asyncio.Task[None] | None = None
        while True:
            self._met.clear()
            self._due.clear()
            task = self._launch()
            if await _either(task, self._met):
                current, since = task, loop.time()
                self._due.clear()  # that was said of the one before
                await _either(current, self._due)
                if loop.time() - since > SETTLED:
                    self._backoff.reset()
            elif current is not None and not current.done():
                await asyncio.sleep(self._backoff.pause())
                continue
            if current is None or current.done():
                await asyncio.sleep(self._backoff.pause())


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> bool:
    """Wait for the task's end or for the event; whether it was the event, with the task still running."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return event.is_set() and not task.done()
