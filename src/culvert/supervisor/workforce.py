"""All workers of the supervisor, of whatever generation: what each is told, and when it is overdue."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from culvert.attached import Attached
from culvert.control import DRAIN, FINISH, LOG, STOP
from culvert.log import Channel
from culvert.supervisor.contract import Generation
from culvert.supervisor.process import Worker


class Workforce:
    """The workers by pid. One that was told to stop is killed after `stop_patience` seconds."""

    def __init__(self, stop_patience: float, log: Callable[[], Channel]) -> None:
        self._stop_patience = stop_patience
        self._log = log
        self._workers: dict[int, Worker] = {}
        self._attached = Attached()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def add(self, worker: Worker) -> None:
        """Take in one that was forked, and have it join the traces that are there: it will read that
        before it accepts anybody.
        """
        self._workers[worker.pid] = worker
        for message, sock in self._attached:
            self._ask_to_join(worker, message, sock.fileno())

    def attach(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Have everybody who serves join a trace, now and later: `message` asks for it, and comes with its
        socket. That is closed without a word where there are too many.
        """
        if descriptors and self._attached.add(message, descriptors[0]):
            for worker in self:
                self._ask_to_join(worker, message, descriptors[0])

    def _ask_to_join(self, worker: Worker, message: bytes, descriptor: int) -> None:
        if not worker.generation.administers(worker.index):
            self.tell(worker, message, [descriptor])

    def let_go(self) -> None:
        """In a child: close what is the supervisor's alone."""
        self._attached.close()
        for worker in self:
            worker.channel.close()
            worker.close_passed()

    def remove(self, pid: int) -> Worker | None:
        """Let go of one that was reaped; None where the pid is nobody's here."""
        return self._workers.pop(pid, None)

    def has(self, worker: Worker) -> bool:
        """Whether it was not reaped yet."""
        return self._workers.get(worker.pid) is worker

    def of(self, generation: Generation | None) -> list[Worker]:
        """Those of one generation."""
        return [worker for worker in self if worker.generation is generation]

    def leaving(self, current: Generation | None) -> list[Worker]:
        """Those of other generations than the current one."""
        return [worker for worker in self if worker.generation is not current]

    @property
    def due(self) -> float:
        """When the next has to have done what it was told; infinite where nothing is waited for."""
        return min((min(worker.deadline, worker.drained_by) for worker in self), default=math.inf)

    def meet_deadlines(self, now: float, again: float) -> None:
        """Kill those that are past their deadline, and stop those that have drained for long enough. One that
        was killed is looked for `again` after so many seconds.
        """
        for worker in self:
            if worker.deadline <= now:
                self._log().error(f"{worker} did not {worker.duty} in time and is killed")
                worker.deadline = now + again
                os.kill(worker.pid, signal.SIGKILL)
            if worker.drained_by <= now:
                self._log().notice(f"reloadDrainTimeout exceeded: {worker} is told to stop")
                self.stop(worker)

    def tell(self, worker: Worker, message: bytes, descriptors: Sequence[int] = ()) -> bool:
        """Send a message; False where that cannot be."""
        try:
            worker.send(message, descriptors)
        except ConnectionError:
            return False  # it is ending: that gets its own line
        except OSError as error:
            self._log().warning(f"{worker} takes no messages: {error.strerror}")
            return False
        return True

    def tell_all(self, message: bytes) -> None:
        """Send a message to everyone."""
        for worker in self:
            self.tell(worker, message)

    def hand_over(self, old: Generation, new: Generation) -> Sequence[int]:
        """Let those of the old generation whose work goes on unchanged be of the new one, and log there.

        Returns the new one's posts that nobody has: whoever was to stay has died meanwhile.
        """
        for worker in self.of(old):
            index = old.posts.heir(worker.index, new.posts) if worker.ready and not worker.stopping else None
            if index is not None:
                worker.generation, worker.index = new, index
                self.tell(worker, LOG, new.log.descriptors())
                for words in new.posts.words(index):
                    self.tell(worker, words)
        filled = {worker.index for worker in self.of(new)}
        return [index for index in new.posts.indices() if index not in filled]

    def drain(self, workers: Sequence[Worker], patience: float | None) -> None:
        """Have workers whose successors serve finish, within `patience` seconds where it is not None."""
        now = time.monotonic()
        for worker in workers:
            if patience is not None:
                worker.drained_by = now + patience
            if not self.tell(worker, DRAIN):
                worker.deadline = now

    def finish(self) -> None:
        """Have everyone finish, as the daemon ends; `stop_all` ends that."""
        self._attached.close()
        for worker in self:
            worker.drained_by = math.inf
            if not self.tell(worker, FINISH):
                self.stop(worker)

    def stop(self, worker: Worker) -> None:
        """End a worker with its connections."""
        if not worker.stopping:
            worker.stopping = True
            worker.drained_by = math.inf
            worker.deadline = time.monotonic() + self._stop_patience
            self.tell(worker, STOP)

    def stop_all(self) -> None:
        """End everyone."""
        self._attached.close()
        for worker in self:
            self.stop(worker)

    def kill_all(self) -> None:
        """End everyone at once, and reap them: nobody is left to watch."""
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
