"""Looks names up in threads, for getaddrinfo(3) blocks, and makes one look-up do for all who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable

from culvert.address import Address
from culvert.targets.endpoint import Endpoint

THREAD_LIMIT = 16
"""Most look-ups at a time for one service: names that clients ask for may be made to hang."""

Find = Callable[[Address], tuple[Endpoint, ...]]
"""Looks a target up and waits for that, as `endpoints_of` does."""

Answer = asyncio.Future[tuple[Endpoint, ...]]


class Lookups:
    """The look-ups of one service in one worker.

    A thread cannot be cancelled, and one that waits for a name server may do so for long. Threads of a
    pool would be waited for at the end of the process; these are daemon threads, which are left behind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, find: Find, keep: float | None = None) -> None:
        """With `keep`, the last answer stands in for one that fails, or has not come after so many seconds:
        a name server may only be reached through what the answer is needed for.
        """
        self._loop = loop
        self._find = find
        self._keep = keep
        self.kept: dict[Address, tuple[Endpoint, ...]] = {}
        """The last answers, where they are kept."""
        self.on_stand_in: Callable[[Address], None] = lambda _: None
        """Called where one stands in for a new one."""
        self._under_way: dict[Address, Answer] = {}
        self._queue: dict[Address, Answer] = {}
        self._waiting: Counter[Address] = Counter()
        self._running = 0

    def start(self, target: Address) -> Answer:
        """What the target turns out to stand for, or OSError. It is shared, and so not to be cancelled:
        whoever does not wait for it any more says so by `leave`.
        """
        answer = self._under_way.get(target)
        if answer is None:
            answer = self._under_way[target] = self._loop.create_future()
            answer.add_done_callback(_seen)
            self._queue[target] = answer
            if self._keep is not None and target in self.kept:
                timer = self._loop.call_later(self._keep, self._stand_in, target, answer)
                answer.add_done_callback(lambda _: timer.cancel())
        self._waiting[target] += 1
        self._run_next()
        return answer

    def leave(self, target: Address, answer: Answer) -> None:
        """Wait no more. A look-up that nobody waits for is not begun: those of clients that have given up
        would hold up the others for hours.
        """
        if self._under_way.get(target) is not answer:
            return
        self._waiting[target] -= 1
        if not self._waiting[target] and self._queue.pop(target, None) is not None:
            self._forget(target)
            answer.cancel()

    def _run_next(self) -> None:
        if self._queue and self._running < THREAD_LIMIT:
            target = next(iter(self._queue))
            answer = self._queue.pop(target)
            self._running += 1
            try:
                threading.Thread(target=self._look_up, args=(target, answer), daemon=True).start()
            except RuntimeError:  # no more threads for this process
                self._finish(target, answer, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    def _look_up(self, target: Address, answer: Answer) -> None:
        found: tuple[Endpoint, ...] | Exception
        try:
            found = self._find(target)
        except Exception as error:  # it is raised where the answer is waited for
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish, target, answer, found)

    def _finish(self, target: Address, answer: Answer, found: tuple[Endpoint, ...] | Exception) -> None:
        self._running -= 1
        self._forget(target)
        if not isinstance(found, Exception):
            if self._keep is not None:
                self.kept[target] = found
            if not answer.done():
                answer.set_result(found)
        elif target in self.kept:
            self._stand_in(target, answer)
        elif not answer.done():
            answer.set_exception(found)
        self._run_next()

    def _stand_in(self, target: Address, answer: Answer) -> None:
        if not answer.done():
            self.on_stand_in(target)
            answer.set_result(self.kept[target])

    def _forget(self, target: Address) -> None:
        del self._under_way[target]
        self._waiting.pop(target, None)


def _seen(answer: Answer) -> None:
    """Have an answer that nobody waits for any more fail in silence."""
    if not answer.cancelled():
        answer.exception()
