"""The daemon as one process, without a fork: `workers = 0`.

It does in one event loop what the supervisor and its workers share out among them: one generation is
current, those before it are leaving, each with its connections and its log, until these connections are
over. A reload can only use what this process may still do: behind a jail or without root, files and low
ports may be out of its reach; then the running configuration goes on, as with any reload that fails.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from culvert import privileges, worker
from culvert.admin import operations
from culvert.admin.operations import Listing, Outcome
from culvert.admin.overview import DAEMON, Overview
from culvert.config.model import Foreground, GlobalOptions
from culvert.control import Action, Request
from culvert.errors import ConfigurationError, os_reason
from culvert.generation import Generation
from culvert.jail import Place
from culvert.log import Channel
from culvert.metrics import Event
from culvert.privileges import ExitStatus
from culvert.watch import Host, Renewal, Watched
from culvert.worker import Worker

if TYPE_CHECKING:
    from culvert.admin.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A generation that was replaced, and the worker that sees its connections to their end."""

    generation: Generation
    worker: Worker


class SingleProcess:
    """Serves what `build` makes, in this process, until a signal ends it."""

    def __init__(self, build: Callable[[Generation | None], Generation]) -> None:
        self._build = build
        self._generation: Generation
        self._worker: Worker
        self._leaving: dict[asyncio.Task[None], _Leaving] = {}
        self._stopped = asyncio.Event()
        self._pid_file: privileges.PidFile | None = None
        self._report: privileges.StartReport | None = None
        self._endpoint: Endpoint | None = None
        self._home: Path | None = None
        self._renewal: Renewal
        self._renewing: asyncio.TimerHandle | None = None
        self._obstacle_told = ""

    def run(self) -> int:
        """Serve until a signal says otherwise; returns an `ExitStatus`. To be called once.

        Raises ConfigurationError when the start fails, unless it is a daemon by then: that has its reasons
        in the log, and in what the process that waits for it says.
        """
        self._generation = self._build(None)
        status, reason = ExitStatus.OK, ""
        try:
            self._detach(self._generation.options)
            with worker.running_loop() as loop:
                loop.run_until_complete(self._live())
        except (ConfigurationError, OSError) as error:
            configured = isinstance(error, ConfigurationError)
            if configured and self._report is None:
                raise
            status = ExitStatus.CONFIGURATION if configured else ExitStatus.FAILED_START
            reason = str(error)
        except Exception:
            self._log.fault("The daemon")
            status, reason = ExitStatus.CRASH, "The daemon failed"
        finally:
            self._generation.retire(None)
        if reason:  # told when nothing is left: who waits for the start may look
            self._refuse(status, reason)
        self._log.notice("Terminated")
        return status

    @property
    def _log(self) -> Channel:
        return self._generation.main

    def _detach(self, options: GlobalOptions) -> None:
        """Become a daemon where asked. Raises OSError when there can be no process."""
        if options.pid:
            self._pid_file = privileges.PidFile(
                Place(options.chroot, options.pid), options.locations.get("pid")
            )
        if options.foreground is Foreground.NO:
            self._home = privileges.working_directory()
            self._report = privileges.daemonize(ExitStatus.FAILED_START)

    def _refuse(self, status: ExitStatus, reason: str) -> None:
        """Give the reason for an end in the log, and to the process that may still wait for the start."""
        for line in reason.splitlines():
            self._log.error(line)
        if self._report is not None:
            self._report.send(status, reason)

    async def _live(self) -> None:
        """From the pid file to the last connection's end. Raises ConfigurationError when the start fails."""
        self._renewal = self._make_renewal()
        self._catch_signals()  # before the pid file: who reads that may send a signal at once
        try:
            if self._pid_file is not None:
                self._pid_file.create()
            if self._generation.door is not None or self._generation.options.chroot is not None:
                importlib.import_module(
                    "culvert.admin.endpoint"
                )  # a reload may want it, and a jail has no modules
            self._generation.close_jail()
            self._start(self._generation, Worker(self._generation.assignment(0)))
            self._generation.announce()
            if self._report is not None:
                self._report.send(ExitStatus.OK)
            self._watch_files()
            await self._stopped.wait()
            await self._end()
        finally:
            self._end_renewal()
            self._remove_pid_file()

    def _start(self, generation: Generation, fresh: Worker) -> None:
        worker.report_faults(asyncio.get_running_loop(), generation.main)
        self._generation, self._worker = generation, fresh
        fresh.start()
        leaving, self._endpoint = self._endpoint, self._open_endpoint(generation)
        if leaving is not None:
            leaving.leave()

    def _open_endpoint(self, generation: Generation) -> Endpoint | None:
        """The admin endpoint of a generation, which answers from now on; None where it has none."""
        if generation.door is None or generation.ledger is None:
            return None
        from culvert.admin.endpoint import Endpoint  # noqa: PLC0415  its libraries are for those who ask for it

        overview = Overview(generation.services, generation.ledger)
        endpoint = Endpoint(generation.door, overview, _Operations(self), generation.main)
        endpoint.start()
        return endpoint

    async def _end(self) -> None:
        """End all connections, also those that are left of earlier generations."""
        self._generation.note(Event.STOPPING)
        for task in self._leaving:
            task.cancel()
        ending = asyncio.get_running_loop().create_task(self._worker.end())
        await asyncio.wait([ending, *self._leaving])
        if self._endpoint is not None:
            self._endpoint.end()
            await self._endpoint.finished()

    def _remove_pid_file(self) -> None:
        if self._pid_file is None:
            return
        if self._generation.jailed:
            self._pid_file.enter_jail()
        try:
            self._pid_file.remove()
        except OSError as error:
            self._log.warning(f"Cannot remove the pid file {self._pid_file.place}: {os_reason(error)}")

    # Signals.

    def _catch_signals(self) -> None:
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stopped.set,
            signal.SIGINT: self._stopped.set,
            signal.SIGQUIT: self._stopped.set,
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._list_connections,
        }
        loop = asyncio.get_running_loop()
        for number, action in actions.items():
            loop.add_signal_handler(number, self._obey, number, action)

    def _obey(self, number: signal.Signals, action: Callable[[], None]) -> None:
        self._log.notice(f"Received {number.name}")
        action()

    def _reopen_logs(self) -> None:
        for generation in (self._generation, *(one.generation for one in self._leaving.values())):
            for failure in generation.log.reopen():
                self._log.error(failure)

    def _list_connections(self) -> None:
        for one in (self._worker, *(leaving.worker for leaving in self._leaving.values())):
            one.list_connections()

    # Reloading: prepare, commit, see the old one off.

    def _reload(self) -> None:
        if self._stopped.is_set():
            return
        try:
            generation, fresh = self._prepare()
        except (ConfigurationError, OSError) as error:
            if self._renewal.waits(error):
                return
            for line in str(error).splitlines():
                self._log.error(line)
            self._log.error("Configuration failed")
            self._generation.note(Event.RELOAD_FAILED)
        except Exception as error:  # the running configuration outlives a fault in loading another
            self._renewal.waits(error)
            self._log.fault("Loading the configuration")
            self._log.error("Configuration failed")
            self._generation.note(Event.RELOAD_FAILED)
        else:
            self._commit(generation, fresh)
            generation.note(Event.RELOADED)
            self._watch_files()

    def _prepare(self) -> tuple[Generation, Worker]:
        """The next generation and its worker. A failure leaves everything as it was."""
        with privileges.back_in(self._home):
            generation = self._build(self._generation)
        try:
            return generation, Worker(generation.assignment(0))
        except OSError:
            generation.retire(self._generation)
            generation.log.close()
            raise

    def _commit(self, generation: Generation, fresh: Worker) -> None:
        leaving = _Leaving(self._generation, self._worker)
        leaving.worker.stop_accepting()
        self._start(generation, fresh)
        leaving.generation.retire(generation)
        generation.announce()  # whoever connects from now on can only meet the new generation
        task = asyncio.get_running_loop().create_task(_see_off(leaving))
        self._leaving[task] = leaving
        task.add_done_callback(self._leaving.__delitem__)

    # What the admin endpoint asks for.

    def perform(self, request: Request) -> list[dict[str, Any]]:
        """Have it done by the worker, and by those that are leaving."""
        workers = [self._worker, *(leaving.worker for leaving in self._leaving.values())]
        return [message for one in workers for message in one.perform(request)]

    async def reload(self) -> Outcome:
        """Load the configuration again."""
        self._log.notice("A reload was asked for over the admin endpoint")
        generation = self._generation
        if generation.ledger is None:
            return Outcome.FAILED
        before = operations.reloads(generation.ledger.tally(DAEMON))
        self._reload()
        return await operations.outcome(generation.ledger.tally(DAEMON), before)

    # Changed files.

    def _make_renewal(self) -> Renewal:
        loop = asyncio.get_running_loop()

        def hear(channel: socket.socket, react: Callable[[], None]) -> None:
            loop.add_reader(channel, self._renew, react)

        return Renewal(Host(self._reload, lambda: self._log, hear, loop.remove_reader))

    def _watch_files(self) -> None:
        """Watch the files of the generation, where a reload could read them again; else say why not, once."""
        watched = self._generation.watched
        obstacle = self._obstacle(watched) if watched is not None else ""
        if obstacle != self._obstacle_told:
            self._log.warning(f"Changed files are not noticed: {obstacle}; 'workers' of 1 or more can do it")
        self._obstacle_told = obstacle
        self._renewal.follow(None if obstacle else watched)
        self._await_renewal()

    def _obstacle(self, watched: Watched) -> str:
        if self._generation.options.chroot is not None:
            return "this process is behind 'chroot', and they are outside"
        unreadable = watched.unreadable()
        return f"this process may not read {', '.join(unreadable)} any more" if unreadable else ""

    def _end_renewal(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewal.end()

    def _renew(self, step: Callable[[], None]) -> None:
        step()
        self._await_renewal()

    def _await_renewal(self) -> None:
        """Have the renewal act when it wants to."""
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        if self._renewal.due < math.inf:
            self._renewing = asyncio.get_running_loop().call_later(
                max(0.0, self._renewal.due - time.monotonic()), self._renew, self._renewal.act
            )


class _Operations:
    """What the endpoint can have done, by the process that it is in."""

    def __init__(self, process: SingleProcess) -> None:
        self._process = process

    async def connections(self, limit: int, service: str | None) -> Listing:
        answers = self._process.perform(Request(Action.LIST, limit=limit, service=service))
        return operations.listing(answers, limit)

    async def end(self, ident: str) -> int:
        answers = self._process.perform(Request(Action.END, ident=ident))
        return sum(answer["ended"] for answer in answers)

    async def set_level(self, level: int) -> None:
        self._process.perform(Request(Action.LEVEL, level=level))

    async def reload(self) -> Outcome:
        return await self._process.reload()


async def _see_off(leaving: _Leaving) -> None:
    """Let the connections of a generation come to their end; cancelled, end them."""
    try:
        await leaving.worker.drain()
    finally:
        await leaving.worker.end()
        leaving.generation.log.close()
