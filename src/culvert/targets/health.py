"""Which addresses are set aside because they fail, until when, and what the log says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from culvert.config.model import Service
from culvert.log import Channel
from culvert.targets.board import Board
from culvert.targets.target import Backend

FIRST_PAUSE = 1.0
"""Seconds until an address that failed is tried again in the background; the pause doubles each time."""

LAST_PAUSE = 60.0
"""The longest pause after a failure, in seconds."""


def pause_after(failures: int) -> float:
    """For how many seconds to leave alone what has failed so many times in a row."""
    return min(FIRST_PAUSE * (1 << min(max(failures - 1, 0), 16)), LAST_PAUSE)


class Health:
    """Judges the addresses of one service in one worker by what comes of attempts to connect.

    One that fails is set aside: clients are not sent there while there is another, and the background tries
    it again. A success, be it a client's, ends that. A service's only address is never set aside. What the
    workers find they share by the board, and each finding is logged by one of them.
    """

    def __init__(
        self,
        service: Service,
        loop: asyncio.AbstractEventLoop,
        log: Channel,
        board: Board,
        others: Callable[[Backend], tuple[int, int]],
    ) -> None:
        """`others` counts the other addresses, and those of them that are the same target's and in use."""
        self._name = service.name
        self._loop = loop
        self._log = log
        self._board = board
        self._others = others
        # What is probed anyway is not left alone for longer than that.
        self._most = LAST_PAUSE if service.health_check is None else min(service.health_check, LAST_PAUSE)
        self._heeded = 0
        self.on_change: Callable[[], None] | None = None
        """Called when there may be something to do in the background."""
        self.on_finding: Callable[[], None] | None = None
        """Called when an address is found to fail, or to answer again."""
        self.probes_all = False
        """Whether a sole address that fails is probed too. Clients are sent there all the same."""

    def failed(self, backend: Backend, reason: str, *, probed: bool = False) -> None:
        """An attempt failed. One that is set aside already is given a longer pause by probes only: any number
        of clients may come to it where no other is left.
        """
        if backend.due is not None and backend.failures and not probed:
            return
        backend.failures += 1
        others, siblings = self._others(backend)
        if others or self.probes_all:
            self._pause(backend)
        if others or probed or self.probes_all:
            known = self._board.read(backend.endpoint)
            if known is None or known < 0:
                self._board.set_aside(backend.endpoint)
                tell = self._log.info if siblings else self._log.warning
                verb = "is set aside" if others else "does not answer"
                tell(f"Service [{self._name}]: {backend.name} {verb}: {reason}")
        self.changed()

    def postpone(self, backend: Backend) -> None:
        """A probe was made; where it proved nothing and another one would be due, leave that for later."""
        if backend.due is not None and backend.due <= self._loop.time():
            self._pause(backend)

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
        seconds = self._board.read(backend.endpoint)
        if seconds is not None and seconds >= 0:
            self._board.clear(backend.endpoint)
            self._log.notice(f"Service [{self._name}]: {backend.name} answers again after {seconds:.1f} s")
        self._found()

    def heed(self, backends: Callable[[], Iterable[Backend]]) -> None:
        """Take over what other workers have found since the last time; usually that is nothing."""
        version = self._board.version
        if version == self._heeded:
            return
        self._heeded = version
        for backend in backends():
            seconds = self._board.read(backend.endpoint)
            if seconds is None:
                continue
            if seconds < 0:
                if backend.failures:
                    backend.failures = 0
                    backend.due = None
            elif not backend.failures and (self.probes_all or self._others(backend)[0]):
                backend.failures = 1
                self._pause(backend)
        self.changed()

    def changed(self) -> None:
        """Have the background look whether there is something to do for it."""
        if self.on_change is not None:
            self.on_change()
        self._found()

    def _found(self) -> None:
        if self.on_finding is not None:
            self.on_finding()

    def _pause(self, backend: Backend) -> None:
        backend.due = self._loop.time() + min(pause_after(backend.failures), self._most)
