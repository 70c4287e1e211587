"""What the workers of one service tell each other of addresses that fail, in memory that they share.

One worker finds that a backend is dead, and the clients of the others need not find it again. A worker
writes here what it sets aside and what answers again; the others heed that with their next connection. It is
advice: an entry that is lost costs one attempt, and one that is wrong holds until the next probe.

There is no lock. Each number is written whole, and the `version` last; two entries that fall on one place
take it from each other.
"""

from __future__ import annotations

import mmap
import time

from culvert.targets.endpoint import Endpoint

PLACES = 251
"""More than a service usually has addresses; a prime, for hashes are spread by it."""

_ANSWERS = -1


class Board:
    """Made before the fork, for one service. Hashes are the same in all workers, which are forks of one."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, (1 + 2 * PLACES) * 8)).cast("q")

    @property
    def version(self) -> int:
        """Another number each time that something was written; 0 if nothing ever was."""
        return self._numbers[0]

    def set_aside(self, endpoint: Endpoint) -> None:
        """Tell that an address is set aside, or does not answer."""
        self._write(endpoint, time.monotonic_ns())

    def clear(self, endpoint: Endpoint) -> None:
        """Tell that it answers again."""
        self._write(endpoint, _ANSWERS)

    def read(self, endpoint: Endpoint) -> float | None:
        """For how many seconds an address has been set aside; negative where it answers again, None where
        nothing is known of it.
        """
        place = self._place(endpoint)
        since = self._numbers[place + 1]
        if self._numbers[place] != hash(endpoint) or not since:
            return None
        return since if since < 0 else (time.monotonic_ns() - since) / 1e9

    def _write(self, endpoint: Endpoint, state: int) -> None:
        place = self._place(endpoint)
        self._numbers[place] = hash(endpoint)
        self._numbers[place + 1] = state
        self._numbers[0] = time.monotonic_ns()

    @staticmethod
    def _place(endpoint: Endpoint) -> int:
        return 1 + 2 * (hash(endpoint) % PLACES)
