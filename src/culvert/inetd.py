"""Inetd mode: the one connection that the launcher hands over, served in this process to its end.

No supervisor, no fork, no pid file, no reload. What it says goes to the log; nothing but the connection's
own bytes is ever written to standard output.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from culvert import inherited, worker
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

    def run(self) -> int:
        """Serve until the connection is over, or a signal comes; returns an `ExitStatus`.

        OK is also for a connection that failed: that is its peers' business, told in the log, and whoever
        starts one process for each client should not take it for a fault of the service. Raises
        ConfigurationError when there is no connection, or the start fails.
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
                loop.run_until_complete(self._serve(passed))
        except Exception:
            self._log.fault("The connection")
            return ExitStatus.CRASH
        return ExitStatus.OK

    @property
    def _log(self) -> Channel:
        return self._generation.main

    async def _serve(self, passed: Inherited) -> None:
        loop = asyncio.get_running_loop()
        worker.report_faults(loop, self._log)
        serving = Worker(self._generation.assignment(0))
        stopped: asyncio.Future[None] = loop.create_future()
        self._catch_signals(serving, stopped)
        for prepared in self._generation.services:
            self._log.info(f"Service [{prepared.config.name}] started")
        connection = serving.take(passed)
        await asyncio.wait([connection, stopped], return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            await serving.end()

    def _catch_signals(self, serving: Worker, stopped: asyncio.Future[None]) -> None:
        def stop() -> None:
            if not stopped.done():
                stopped.set_result(None)

        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: stop,
            signal.SIGINT: stop,
            signal.SIGQUIT: stop,
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
