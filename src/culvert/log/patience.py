"""How long a process waits for whoever reads its log: a small share of its time, so that nobody can stall it.

A reader of a pipe or a socket is often late by some milliseconds, and a line would be lost for nothing. One
that has stopped costs the event loop `MOST` seconds once, and then nothing until it has taken a line again;
one that is slow for ever costs `SHARE` of the time.
"""

from __future__ import annotations

import select
import time

MOST = 0.5
"""Seconds that a process waits in all, once it has been patient for long."""

SHARE = 0.02
"""How much of its time a process spends on waiting for slow readers."""

_LEAST = 0.001
"""Seconds below which waiting is not worth a system call."""


class Patience:
    """The patience of one process with one reader."""

    __slots__ = ("_left", "_since", "_stalled")

    def __init__(self) -> None:
        self._left = MOST
        self._since = time.monotonic()
        self._stalled = False

    def wait(self, fd: int) -> bool:
        """Wait until the reader has made room, as far as patience goes; whether it has."""
        now = time.monotonic()
        self._left = min(MOST, self._left + (now - self._since) * SHARE)
        self._since = now
        if self._stalled or self._left < _LEAST:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        room = bool(poll.poll(self._left * 1000))
        self._since = time.monotonic()
        self._left -= self._since - now
        self._stalled = not room
        return room

    def reward(self) -> None:
        """The reader has taken something."""
        self._stalled = False
