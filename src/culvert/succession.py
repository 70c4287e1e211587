"""The generations at work in one event loop: the current one, and those that are leaving.

A new one takes over at once, with the listening sockets that it shares; the one before accepts nothing more
and lives on, with its worker and its log, until its connections are over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from culvert.generation import Generation
from culvert.latecomers import LOOK
from culvert.worker import Worker


@dataclass(frozen=True, slots=True)
class Serving:
    """A generation, and the worker that serves it."""

    generation: Generation
    worker: Worker

    @classmethod
    def of(cls, generation: Generation, previous: Generation | None) -> Serving:
        """Ready to serve, in the running loop. Raises OSError, and lets go of the generation then."""
        try:
            return cls(generation, Worker(generation.assignment(0)))
        except OSError:
            generation.retire(previous)
            generation.log.close()
            raise


class Succession:
    """Who serves, one after the other. `commit` the first one to begin; `end` when all is to be over."""

    def __init__(self, on_left: Callable[[Serving], None] = lambda _: None) -> None:
        """`on_left` hears of each generation whose last connection is over."""
        self._current: Serving | None = None
        self._leaving: dict[asyncio.Task[None], Serving] = {}
        self._on_left = on_left

    def __iter__(self) -> Iterator[Serving]:
        """The current one, then those that are leaving."""
        if self._current is not None:
            yield self._current
        yield from self._leaving.values()

    def commit(self, fresh: Serving) -> None:
        """Have this one serve from now on."""
        before, self._current = self._current, fresh
        if before is not None:
            before.generation.turn_away(fresh.generation)
            before.worker.stop_accepting()
        fresh.worker.start()
        if before is not None:
            before.generation.retire(fresh.generation)
        fresh.generation.announce()  # whoever connects from now on can only meet the new generation
        if before is not None:
            self._leave(before, fresh.generation.options.reload_drain_timeout, succeeded=True)

    async def take_latecomers(self) -> None:
        """Let nobody begin to connect any more; return when those who had begun are there, before
        `stop_accepting`.
        """
        if self._current is not None:
            arrivals = self._current.generation.turn_away_clients()
            while arrivals.expected():
                await asyncio.sleep(LOOK)

    def stop_accepting(self) -> None:
        """Take no new connection, and let go of the addresses. Those that live go on."""
        if self._current is not None:
            current, self._current = self._current, None
            current.generation.turn_away_clients()
            current.worker.abandon_listeners()
            current.generation.stop_listening()
            self._leave(current, None, succeeded=False)

    @property
    def open_connections(self) -> int:
        """How many connections live, without those that come to their end already."""
        return sum(serving.worker.open_connections for serving in self)

    async def drain(self) -> None:
        """After `stop_accepting`: return when the last connection has ended."""
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def end(self) -> None:
        """End all connections, those included that are left of earlier generations."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step would end nothing
        for task in self._leaving:
            task.cancel()
        waiting = set(self._leaving)
        if self._current is not None:
            waiting.add(asyncio.get_running_loop().create_task(self._current.worker.end()))
        if waiting:
            await asyncio.wait(waiting)

    def _leave(self, serving: Serving, patience: float | None, *, succeeded: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._see_off(serving, patience, succeeded=succeeded))
        self._leaving[task] = serving
        task.add_done_callback(self._leaving.__delitem__)

    async def _see_off(self, serving: Serving, patience: float | None, *, succeeded: bool) -> None:
        """Let the connections of a generation come to their end, and end them once it takes longer than
        `patience` seconds; cancelled, end them at once. One that has no successor has the log to the end.
        """
        try:
            async with asyncio.timeout(patience):
                await serving.worker.drain()
        except TimeoutError:
            count = serving.worker.open_connections
            serving.generation.main.notice(f"reloadDrainTimeout exceeded: ending {count} connection(s)")
        finally:
            await serving.worker.end()
            self._on_left(serving)
            if succeeded:
                serving.generation.log.close()
