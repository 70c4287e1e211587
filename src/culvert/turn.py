"""The right to run a program that is there only once, handed from one worker to the next."""

from __future__ import annotations

import fcntl
import os
import weakref


class Turn:
    """The right to run a service's program, held by one worker at a time.

    A reload starts the new worker's services while the old worker's connections live on. Two copies of a
    program that has the link to itself (pppd) would be in each other's way: the new one waits for the old.

    Between processes it is a record lock (fcntl(2)), so the kernel gives it back when its process ends,
    however that happens. Such a lock does not hold off its own process, where workers may follow one
    another as well: that is what the flag is for.
    """

    PAUSE = 0.5
    """Seconds between attempts to take it."""

    def __init__(self, name: str) -> None:
        self._fd = os.memfd_create(f"culvert-{name}")
        weakref.finalize(self, os.close, self._fd)
        self._taken = False

    def take(self) -> bool:
        """Whether it is the caller's from now on, until `give_back`."""
        if self._taken:
            return False
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._taken = True
        return True

    def give_back(self) -> None:
        """Let the next one have it."""
        self._taken = False
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
