"""The daemon's own end, as the supervisor brings it about."""

from __future__ import annotations

import math
import time

from culvert.drain import Drain
from culvert.latecomers import LOOK
from culvert.notify import Notifier
from culvert.privileges import ExitStatus
from culvert.supervisor.contract import Generation
from culvert.supervisor.process import Worker
from culvert.supervisor.workforce import Workforce


class Ending:
    """From the first signal to the last worker.

    The workers serve on until those are there who were connecting in that moment; then the addresses are
    closed, and the workers are told to finish, or to stop where `drain` waits for nobody.
    """

    def __init__(self, drain: Drain, workers: Workforce, serving: Generation | None) -> None:
        """`serving` is the generation that accepts until now, if there is one."""
        self._drain = drain
        self._workers = workers
        self._serving = serving
        self._arrivals = serving.turn_away_clients() if serving is not None else None
        self._look_again = math.inf
        self._await_arrivals()

    @property
    def due(self) -> float:
        """When there is something to do; infinite where only the workers are waited for."""
        return min(self._drain.deadline, self._look_again)

    def meet_deadlines(self, now: float) -> None:
        """Do what is due."""
        if self._drain.deadline <= now:
            self._drain.expire()
            self._close()
        elif self._look_again <= now:
            self._await_arrivals()

    def force(self) -> None:
        """End at once what is left."""
        self._drain.force()
        self._close()

    def bury(self, worker: Worker, code: int) -> None:
        """Take note of what a worker has left unfinished that has ended with this exit status."""
        self._drain.cut(worker.cut if code == 0 else worker.connections)

    def tell(self, notifier: Notifier) -> None:
        """Say what is waited for, once every worker has said how many connections it has."""
        if self._drain.waits and self._workers and all(worker.draining for worker in self._workers):
            notifier.status(self._drain.waiting(sum(worker.connections for worker in self._workers)))

    def conclude(self) -> ExitStatus:
        """When no worker is left: the status to exit with."""
        return self._drain.conclude()

    def _await_arrivals(self) -> None:
        if self._drain.waits and self._arrivals is not None and self._arrivals.expected():
            self._look_again = time.monotonic() + LOOK
        else:
            self._close()

    def _close(self) -> None:
        self._look_again = math.inf
        if self._serving is not None:
            self._serving.stop_listening()
            self._serving = None
        if self._drain.waits:
            self._workers.finish()
        else:
            self._workers.stop_all()
