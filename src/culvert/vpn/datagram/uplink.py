"""A VPN's client over datagrams: over TLS where these do not get through, until they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from culvert.log import Channel
from culvert.vpn.redial import SETTLED, Backoff

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 600.0
"""Seconds until datagrams are tried again; after each failure twice as long."""


class Choice:
    """Whether to try datagrams now. Times are seconds of any one monotonic clock."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self.again_at = 0.0
        """When they are to be tried again."""

    def datagrams(self, now: float) -> bool:
        """Whether it is time to try them."""
        return now >= self.again_at

    def failed(self, now: float) -> float:
        """They do not get through; returns in how many seconds they are tried again."""
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self.again_at = now + pause
        return pause

    def lasted(self, seconds: float) -> None:
        """A link over them has lasted so long. One that is shorter than the pause before it makes up for no
        failure: there are networks that let handshakes through, and then no more.
        """
        if seconds >= self._pause:
            self._pause, self.again_at = FIRST_PAUSE, 0.0


class DatagramRedial:
    """Keeps a link to the server, as `Redial` does, over datagrams where they get through."""

    def __init__(
        self,
        launch: Callable[[bool], asyncio.Task[None]],
        log: Channel,
        choice: Choice | None = None,
        backoff: Backoff | None = None,
        *,
        on_fallback: Callable[[], None] = lambda: None,
    ) -> None:
        """`launch` begins a connection, over datagrams if it is given True; its task ends with it.
        `on_fallback` is called where datagrams do not get through.
        """
        self._launch = launch
        self._log = log
        self._on_fallback = on_fallback
        self._choice = choice or Choice()
        self._backoff = backoff or Backoff()
        self._met = asyncio.Event()
        self._due = asyncio.Event()
        self._unanswered = False
        self._loop = asyncio.get_running_loop()

    def met(self) -> None:
        """The newest link has met its server."""
        self._met.set()

    def renew(self) -> None:
        """The newest link is worn: make another one beside it."""
        self._due.set()

    def unanswered(self) -> None:
        """The newest link ends because nothing is answered any more over datagrams."""
        self._unanswered = True

    async def run(self) -> None:
        """Until it is cancelled. A link that is replaced lives on until the new one has met the server."""
        current: asyncio.Task[None] | None = None
        over_tls = False
        since = 0.0
        while True:
            over = self._choice.datagrams(self._loop.time())
            task = await self._attempt(over)
            if task is not None:
                current, over_tls, since = task, not over, self._loop.time()
            elif over:
                self._tell_failure(alive=current is not None and not current.done())
            if task is None and (not over or (current is not None and not current.done())):
                await asyncio.sleep(self._backoff.pause())
            if current is not None and not current.done():
                await self._rest(current, over_tls=over_tls)
                lasted = self._loop.time() - since
                if lasted > SETTLED:
                    self._backoff.reset()
                if not over_tls:
                    self._choice.lasted(lasted)
                if current.done() and self._unanswered:
                    self._tell_failure(alive=False)
                elif current.done():
                    await asyncio.sleep(self._backoff.pause())

    async def _attempt(self, over: bool) -> asyncio.Task[None] | None:
        """A connection that has met the server; None where it came to its end before."""
        self._met.clear()
        task = self._launch(over)
        await _first(task, self._met, None)
        self._due.clear()  # that was said of the one before, and so was this
        self._unanswered = False
        return task if self._met.is_set() and not task.done() else None

    async def _rest(self, current: asyncio.Task[None], *, over_tls: bool) -> None:
        """Until the link ends, is worn, or could be one over datagrams."""
        patience = max(self._choice.again_at - self._loop.time(), 0.0) if over_tls else None
        await _first(current, self._due, patience)

    def _tell_failure(self, *, alive: bool) -> None:
        pause = self._choice.failed(self._loop.time())
        self._on_fallback()
        self._log.notice(
            f"VPN: UDP does not get through to the server: TLS {'stays' if alive else 'is'} in use, "
            f"UDP is tried again in {pause:g} s"
        )


async def _first(task: asyncio.Task[None], event: asyncio.Event, patience: float | None) -> None:
    """Wait for the task's end or for the event, but no longer than `patience` seconds."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, waiting], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
