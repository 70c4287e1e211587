"""The daemon as one process, without a fork: `workers = 0`.

It does in one event loop what the supervisor and its workers share out among them. A reload can only use
what this process may still do: behind a jail or without root, files and low ports may be out of its reach;
then the running configuration goes on, as with any reload that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from culvert import privileges, worker
from culvert.config.model import Foreground
from culvert.errors import ConfigurationError, os_reason
from culvert.generation import Generation
from culvert.jail import inside
from culvert.worker import Worker


class SingleProcess:
    """Serves what `build` makes, in this process, until a signal ends it."""

    def __init__(self, build: Callable[[Generation | None], Generation]) -> None:
        self._build = build
        self._generation: Generation
        self._worker: Worker
        self._draining: set[asyncio.Task[None]] = set()
        self._home: Path | None = None

    def run(self) -> int:
        """Serve; returns the exit status. Raises ConfigurationError when the start fails."""
        privileges.restore_defaults()
        first = self._build(None)
        self._generation = first
        options = first.options
        report: privileges.StartReport | None = None
        try:
            if options.foreground is Foreground.NO:
                self._home = privileges.working_directory()
                report = privileges.daemonize(privileges.ExitStatus.FAILED_START)
            pid_file = self._write_pid()
            worker.preload()
            privileges.drop(options.chroot, first.identity)
        except ConfigurationError as error:
            first.retire(None)
            if report is None:
                raise
            report.send(privileges.ExitStatus.CONFIGURATION, str(error))
            return privileges.ExitStatus.CONFIGURATION
        with worker.running_loop() as loop:
            loop.run_until_complete(self._serve(report))
        if pid_file is not None:
            self._remove(pid_file)
        self._log("Terminated")
        return privileges.ExitStatus.OK

    def _write_pid(self) -> privileges.PidFile | None:
        options = self._generation.options
        if not options.pid:
            return None
        pid_file = privileges.PidFile(inside(options.chroot, options.pid), options.locations.get("pid"))
        pid_file.create()
        if options.chroot is not None:
            pid_file.path = inside(None, f"/{options.pid.lstrip('/')}")  # as the jail will have it
        return pid_file

    def _remove(self, pid_file: privileges.PidFile) -> None:
        try:
            pid_file.remove()
        except OSError as error:
            main = self._generation.main
            main.warning(f"Cannot remove the pid file {pid_file.path}: {os_reason(error)}")

    def _log(self, text: str) -> None:
        self._generation.main.notice(text)

    async def _serve(self, report: privileges.StartReport | None) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop, number, over)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_log)
        loop.add_signal_handler(signal.SIGUSR2, self._list_connections)
        self._start(self._generation)
        if report is not None:
            report.send(privileges.ExitStatus.OK)
        await over
        for task in self._draining:
            task.cancel()
        await self._worker.end()

    def _stop(self, number: int, over: asyncio.Future[None]) -> None:
        self._log(f"Received {signal.Signals(number).name}")
        if not over.done():
            over.set_result(None)

    def _start(self, generation: Generation) -> None:
        self._worker = Worker(generation.assignment(0))
        self._generation = generation
        self._worker.start()
        generation.announce()

    def _reload(self) -> None:
        self._log("Received SIGHUP")
        main = self._generation.main
        try:
            with contextlib.chdir(self._home) if self._home is not None else contextlib.nullcontext():
                fresh = self._build(self._generation)
        except (ConfigurationError, OSError) as error:
            for line in str(error).splitlines():
                main.error(line)
            main.error("Configuration failed")
            return
        old, leaving = self._generation, self._worker
        leaving.stop_accepting()
        self._start(fresh)
        old.retire(fresh)
        task = asyncio.get_running_loop().create_task(leaving.drain())
        self._draining.add(task)
        task.add_done_callback(lambda done: self._drained(done, old))

    def _drained(self, task: asyncio.Task[None], generation: Generation) -> None:
        self._draining.discard(task)
        generation.log.close()

    def _reopen_log(self) -> None:
        failures = self._generation.log.reopen()
        for failure in failures:
            self._log(failure)

    def _list_connections(self) -> None:
        self._log(f"Connections of process {os.getpid()}")
        self._worker.list_connections()
