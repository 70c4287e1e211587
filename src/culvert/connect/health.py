"""Which addresses are set aside because they fail, until when, and what the log says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from culvert.connect.target import Backend
from culvert.log import Channel

FIRST_PAUSE = 1.0
"""Seconds until an address that failed is tried again in the background; the pause doubles each time."""

LAST_PAUSE = 60.0
"""The longest pause after a failure, in seconds."""


def pause_after(failures: int) -> float:
    """For how long to leave alone what has failed so many times in a row, once at least."""
    return min(FIRST_PAUSE * (1 << min(failures - 1, 16)), LAST_PAUSE)


class Health:
    """Judges the addresses of one service in one worker by what comes of attempts to connect.

    One that fails is set aside: clients are not sent there while there is another, and the background tries
    it again. A success, be it a client's, ends that. A service's only address is never set aside.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        log: Channel,
        others: Callable[[Backend], tuple[int, int]],
        most: float | None,
    ) -> None:
        """`others` counts the other addresses, and those of them that are the same target's and in use.
        No pause is longer than `most`.
        """
        self._name = name
        self._loop = loop
        self._log = log
        self._others = others
        self._most = LAST_PAUSE if most is None else min(most, LAST_PAUSE)
        self.on_change: Callable[[], None] | None = None
        """Called when there may be something to do in the background."""

    def failed(self, backend: Backend, reason: str, *, probed: bool = False) -> None:
        """An attempt failed. One that is set aside already is given a longer pause by probes only: any number
        of clients may come to it where no other is left.
        """
        if backend.due is not None and backend.failures and not probed:
            return
        backend.failures += 1
        others, siblings = self._others(backend)
        if others:
            backend.due = self._loop.time() + min(pause_after(backend.failures), self._most)
        if not backend.announced and (others or probed):
            backend.announced = True
            backend.since = self._loop.time()
            tell = self._log.info if siblings else self._log.warning
            verb = "is set aside" if others else "does not answer"
            tell(f"Service [{self._name}]: {backend.name} {verb}: {reason}")
        self.changed()

    def doubted(self, backend: Backend) -> None:
        """Another address answered while this one had not, though it was asked first: try it at once in the
        background, and spare clients the wait for it until then.
        """
        if backend.due is None:
            backend.due = self._loop.time()
            self.changed()

    def reached(self, backend: Backend) -> None:
        """An attempt succeeded."""
        if backend.due is None and not backend.failures:
            return
        backend.due = None
        backend.failures = 0
        if backend.announced:
            backend.announced = False
            seconds = self._loop.time() - backend.since
            self._log.notice(f"Service [{self._name}]: {backend.name} answers again after {seconds:.1f} s")
            backend.since = self._loop.time()

    def changed(self) -> None:
        """Have the background look whether there is something to do for it."""
        if self.on_change is not None:
            self.on_change()
