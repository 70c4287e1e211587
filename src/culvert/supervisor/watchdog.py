"""Tells the service manager that the daemon lives, as long as the supervisor and its workers do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from culvert.notify import Notifier
from culvert.supervisor.process import Worker


class Watchdog:
    """Asks the workers at half of the manager's interval, and tells it what came of the time before.

    `due` is of the monotonic clock, and infinite while nobody watches.
    """

    def __init__(self, notifier: Notifier, complain: Callable[[str], None]) -> None:
        self._notifier = notifier
        self._complain = complain
        self._overdue = False
        self.due = math.inf

    def start(self, now: float) -> None:
        """Begin, once the daemon has said that it is ready."""
        if self._notifier.watchdog is not None and self.due == math.inf:
            self.due = now

    def act(self, workers: Sequence[Worker] | None, now: float, ask: Callable[[Worker], object]) -> None:
        """To be called when it is `due`, with the workers that must live; if none is left, nothing is told.

        None in place of workers: the daemon ends, and only the caller must live.
        """
        if self._notifier.watchdog is None:
            return
        self.due = now + self._notifier.watchdog / 2
        if workers is None:
            self._notifier.alive()
            return
        silent = [worker for worker in workers if worker.owes_answer]
        for worker in silent:
            if not self._overdue:
                self._complain(f"{worker} does not answer: the service manager is not told that all is well")
        self._overdue = bool(silent)
        if workers and not silent:
            self._notifier.alive()
        for worker in workers:
            if not worker.owes_answer:
                worker.owes_answer = True
                ask(worker)

    def answered(self, workers: Sequence[Worker]) -> None:
        """A worker has answered: where it was late, the manager is told at once."""
        if self._overdue and workers and not any(worker.owes_answer for worker in workers):
            self._overdue = False
            self._notifier.alive()
