"""Numbers for connections that no two of a daemon's processes give out twice, reloads included."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterator

BLOCK = 16
"""Numbers that a process takes at once: the lock then costs a connection next to nothing."""

MEMORY_NAME = "culvert-connection-numbers"
"""What the memory is called in /proc: every process of a daemon holds it, and no other program."""

_SIZE = 8


class ConnectionNumbers:
    """A count in memory that is shared by every process forked after it was made."""

    def __init__(self) -> None:
        self._fd = os.memfd_create(MEMORY_NAME)
        weakref.finalize(self, os.close, self._fd)
        os.pwrite(self._fd, bytes(_SIZE), 0)

    def __iter__(self) -> Iterator[int]:
        """This process's numbers: rising, in blocks of which each belongs to one process."""
        while True:
            first = self._take_block()
            yield from range(first, first + BLOCK)

    def _take_block(self) -> int:
        # A record lock (fcntl(2)): the kernel gives it back when its process dies inside.
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            first = int.from_bytes(os.pread(self._fd, _SIZE, 0), "little")
            os.pwrite(self._fd, (first + BLOCK).to_bytes(_SIZE, "little"), 0)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return first
