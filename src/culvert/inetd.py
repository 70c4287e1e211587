"""Inetd mode: the one connection that the launcher hands over, served in this process to its end.

No supervisor, no fork, no pid file, no reload. What it says goes to the log; nothing but the connection's
own bytes is ever written to standard output.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from culvert import inherited, worker
from culvert.drain import Drain
from culvert.generation import Generation
from culvert.inherited import Inherited
from culvert.log import Channel
from culvert.privileges import ExitStatus
from culvert.worker import Worker


class InetdProcess:
    """Serves one connection with what `build` makes."""

    def __init__(self, build: Callable[[Generation | None], Generation]) -> None:
        self._build = build
        self._generation: Generation
        self._drain: Drain | None = None
        self._stopped = asyncio.Event()
        self._hurried = asyncio.Event()

    def run(self) -> int:
        """Serve until the connection is over, also behind a signal; returns an `ExitStatus`.

        CUT_SHORT tells that a signal ended it, `drainTimeout` later or by a second one. OK is also for a
        connection that failed: that is its peers' business, told in the log, and whoever starts one process
        for each client should not take it for a fault of the service. Raises ConfigurationError when there is
        no connection, or the start fails.
        """
        passed = inherited.take()
        self._generation = self._build(None)
        if passed.gone:
            self._log.info("The client broke off before it could be served")
            return ExitStatus.OK
        self._generation.close_jail()
        try:
            # Not uvloop: see `inherited`.
            with worker.running_loop(asyncio.new_event_loop) as loop:
                return loop.run_until_complete(self._serve(passed))
        except Exception:
            self._log.fault("The connection")
            return ExitStatus.CRASH

    @property
    def _log(self) -> Channel:
        return self._generation.main

    async def _serve(self, passed: Inherited) -> ExitStatus:
        loop = asyncio.get_running_loop()
        worker.report_faults(loop, self._log)
        serving = Worker(self._generation.assignment(0))
        self._catch_signals(serving)
        for prepared in self._generation.services:
            self._log.info(f"Service [{prepared.config.name}] started")
        connection = serving.take(passed)
        stopped = loop.create_task(self._stopped.wait())
        await asyncio.wait([connection, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._drain is None:
            return ExitStatus.OK
        return await self._finish(self._drain, serving, connection)

    async def _finish(self, drain: Drain, serving: Worker, connection: asyncio.Task[None]) -> ExitStatus:
        """Let the connection finish for as long as `drainTimeout` says, then end it."""
        if drain.waits:
            drain.waiting(serving.open_connections)
            hurried = asyncio.get_running_loop().create_task(self._hurried.wait())
            done, _ = await asyncio.wait(
                [connection, hurried],
                timeout=drain.deadline - time.monotonic(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            hurried.cancel()
            if not done:
                drain.expire()
        drain.cut(serving.open_connections)
        await serving.end()
        return drain.conclude()

    def _stop(self) -> None:
        if self._drain is not None:
            self._drain.force()
            self._hurried.set()
            return
        self._drain = Drain(self._log, self._generation.options.drain_timeout)
        self._stopped.set()

    def _catch_signals(self, serving: Worker) -> None:
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGQUIT: self._stop,
            signal.SIGHUP: lambda: self._log.info("There is nothing to reload for one connection"),
            signal.SIGUSR1: self._reopen_log,
            signal.SIGUSR2: serving.list_connections,
        }
        for number, action in actions.items():
            asyncio.get_running_loop().add_signal_handler(number, self._obey, number, action)

    def _obey(self, number: signal.Signals, action: Callable[[], None]) -> None:
        self._log.notice(f"Received {number.name}")
        action()

    def _reopen_log(self) -> None:
        for failure in self._generation.log.reopen():
            self._log.error(failure)
