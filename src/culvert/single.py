"""The daemon as one process, without a fork: `workers = 0`.

It does in one event loop what the supervisor and its workers share out among them: one generation is
current, those before it are leaving, each with its connections and its log, until these connections are
over. A reload can only use what this process may still do: behind a jail or without root, files and low
ports may be out of its reach; then the running configuration goes on, as with any reload that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from culvert import worker
from culvert.admin import operations
from culvert.admin.attachment import LAST_WORDS, Attachment
from culvert.admin.operations import Listing, Outcome
from culvert.admin.overview import DAEMON, Overview
from culvert.attached import Attached
from culvert.control import Action, Request
from culvert.drain import Drain
from culvert.errors import ConfigurationError
from culvert.generation import Generation
from culvert.log import Channel, changed
from culvert.metrics import Event
from culvert.notify import Notifier
from culvert.privileges import ExitStatus
from culvert.standing import Standing
from culvert.succession import Serving, Succession
from culvert.trace import Wants
from culvert.watch import Host, Renewal, Watched
from culvert.worker import Worker

if TYPE_CHECKING:
    from culvert.admin.endpoint import Endpoint


_STOP_PAUSE = 0.05
"""Seconds between the answer to a request for the daemon's end, and that end."""


class SingleProcess:
    """Serves what `build` makes, in this process, until a signal ends it."""

    def __init__(
        self, build: Callable[[Generation | None], Generation], notifier: Notifier | None = None
    ) -> None:
        self._build = build
        self._notifier = notifier or Notifier()
        self._generation: Generation
        self._succession = Succession()
        self._drain: Drain | None = None
        self._stopped = asyncio.Event()
        self._hurried = asyncio.Event()
        self._standing = Standing()
        self._endpoint: Endpoint | None = None
        self._former_endpoints: list[Endpoint] = []
        """Those that still show a trace."""
        self._attached = Attached()
        self._renewal: Renewal
        self._renewing: asyncio.TimerHandle | None = None
        self._obstacle_told = ""

    def run(self) -> int:
        """Serve until a signal says otherwise; returns an `ExitStatus`. To be called once.

        Raises ConfigurationError when the start fails, unless it is a daemon by then: that has its reasons
        in the log, and in what the process that waits for it says.
        """
        self._generation = self._build(None)
        self._notifier.complain = lambda text: self._log.error(text)  # noqa: PLW0108  of the day
        status, reason = ExitStatus.OK, ""
        try:
            self._standing.detach(self._generation.options, self._notifier.introduce)
            with worker.running_loop() as loop:
                status = loop.run_until_complete(self._live())
                # One that comes now has nothing left to end, and would change the exit status.
                signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
        except (ConfigurationError, OSError) as error:
            configured = isinstance(error, ConfigurationError)
            if configured and self._standing.report is None:
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

    def _refuse(self, status: ExitStatus, reason: str) -> None:
        """Give the reason for an end in the log, and to the process that may still wait for the start."""
        for line in reason.splitlines():
            self._log.error(line)
        self._standing.send(status, reason)
        self._notifier.status(reason)

    async def _live(self) -> ExitStatus:
        """From the pid file to the last connection's end. Raises ConfigurationError when the start fails."""
        self._renewal = self._make_renewal()
        self._catch_signals()  # before the pid file: who reads that may send a signal at once
        try:
            self._standing.write_pid()
            if self._generation.door is not None or self._generation.options.chroot is not None:
                importlib.import_module(
                    "culvert.admin.endpoint"
                )  # a reload may want it, and a jail has no modules
            self._generation.close_jail()
            self._commit(Serving(self._generation, Worker(self._generation.assignment(0))))
            self._tell_of_start()
            self._watch_files()
            await self._stopped.wait()
            return await self._finish()
        finally:
            self._end_renewal()
            self._standing.give_up(self._log, jailed=self._generation.jailed)

    def _tell_of_start(self) -> None:
        if self._standing.report is not None:
            self._standing.send(ExitStatus.OK, str(os.getpid()))
        else:
            self._notifier.ready(self._generation.summary)
        if self._notifier.watchdog is not None:
            self._say_alive(self._notifier.watchdog / 2)

    def _say_alive(self, interval: float) -> None:
        self._notifier.alive()
        asyncio.get_running_loop().call_later(interval, self._say_alive, interval)

    def _commit(self, fresh: Serving) -> None:
        worker.report_faults(asyncio.get_running_loop(), fresh.generation.main)
        self._generation = fresh.generation
        self._succession.commit(fresh)
        for message, sock in self._attached:
            fresh.worker.answer(Request.decode(message), sock.dup())
        leaving, self._endpoint = self._endpoint, self._open_endpoint(fresh.generation)
        if leaving is not None:
            leaving.leave()
            self._former_endpoints = [one for one in (*self._former_endpoints, leaving) if one.traces]

    def _open_endpoint(self, generation: Generation) -> Endpoint | None:
        """The admin endpoint of a generation, which answers from now on; None where it has none."""
        if generation.door is None or generation.ledger is None:
            return None
        from culvert.admin.endpoint import Endpoint  # noqa: PLC0415  its libraries are for those who ask for it

        overview = Overview(generation.services, generation.ledger, os.getpid())
        endpoint = Endpoint(generation.door, overview, _Operations(self), generation.main)
        endpoint.start()
        return endpoint

    # The end.

    def _stop(self) -> None:
        """Let the connections finish for as long as the options say; a second time, end them."""
        if self._drain is not None:
            self._drain.force()
            self._hurried.set()
            return
        patience = self._generation.options.drain_timeout
        self._drain = Drain(self._log, patience)
        self._attached.close()
        self._generation.note(Event.STOPPING)
        self._notifier.stopping(patience)
        self._stopped.set()

    async def _finish(self) -> ExitStatus:
        """Accept nothing more, and return when the last connection is over."""
        drain = self._drain
        assert drain is not None  # noqa: S101  nothing else has woken this
        if drain.waits:
            await self._wait_for_connections(drain)
        left = self._succession.open_connections
        drain.cut(left)
        if left:
            self._log.notice(f"Ending {left} connection(s)")
        await self._succession.end()
        for endpoint in (*self._former_endpoints, self._endpoint):
            if endpoint is not None:
                await _see_off(endpoint)
        return drain.conclude()

    async def _wait_for_connections(self, drain: Drain) -> None:
        loop = asyncio.get_running_loop()
        finished = loop.create_task(self._drained(drain))
        hurried = loop.create_task(self._hurried.wait())
        done, _ = await asyncio.wait(
            [finished, hurried],
            timeout=drain.deadline - time.monotonic(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not done:
            drain.expire()
        for task in (finished, hurried):
            task.cancel()

    async def _drained(self, drain: Drain) -> None:
        await self._succession.take_latecomers()
        self._succession.stop_accepting()
        self._notifier.status(drain.waiting(self._succession.open_connections))
        await self._succession.drain()

    # Signals.

    def _catch_signals(self) -> None:
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGQUIT: self._stop,
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
        for serving in self._succession:
            for failure in serving.generation.log.reopen():
                self._log.error(failure)

    def _list_connections(self) -> None:
        for serving in self._succession:
            serving.worker.list_connections()

    # Reloading: prepare, commit, see the old one off.

    def _reload(self) -> None:
        if self._stopped.is_set():
            return
        self._generation.note(Event.RELOAD_BEGUN)
        self._notifier.reloading()
        try:
            fresh = self._prepare()
        except (ConfigurationError, OSError) as error:
            if not self._renewal.waits(error):
                for line in str(error).splitlines():
                    self._log.error(line)
                self._log.error("Configuration failed")
                self._generation.note(Event.RELOAD_FAILED)
            self._goes_on(str(error))
        except Exception as error:  # the running configuration outlives a fault in loading another
            self._renewal.waits(error)
            self._log.fault("Loading the configuration")
            self._log.error("Configuration failed")
            self._generation.note(Event.RELOAD_FAILED)
            self._goes_on(f"{type(error).__name__}: {error}")
        else:
            self._commit(fresh)
            fresh.generation.note(Event.RELOADED)
            self._notifier.ready(fresh.generation.summary)
            self._watch_files()

    def _goes_on(self, reason: str) -> None:
        """Tell the service manager that a reload is over, and has failed."""
        self._notifier.ready(f"Reload failed, {self._generation.summary} as before: {reason}")

    def _prepare(self) -> Serving:
        """The next generation and its worker. A failure leaves everything as it was."""
        with self._standing.at_home():
            generation = self._build(self._generation)
        return Serving.of(generation, self._generation)

    # What the admin endpoint asks for.

    def perform(self, request: Request) -> list[dict[str, Any]]:
        """Have it done by the worker, and by those that are leaving."""
        return [message for serving in self._succession for message in serving.worker.perform(request)]

    def attach(self, request: Request) -> Attachment:
        """Have the worker join a trace, those that are leaving, and those that will come."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if self._attached.add(request.encode(), theirs.fileno()):
                for serving in self._succession:
                    serving.worker.answer(request, theirs.dup())
        return Attachment(ours)

    def set_level(self, level: int, service: str | None) -> None:
        """Log what is of this level and above, of one service or of everything, until a reload."""
        for serving in self._succession:
            serving.generation.log.set_level(level, service)
        self._log.notice(changed(level, service))

    def stop(self) -> None:
        """Do what SIGTERM does."""
        self._log.notice("The end was asked for over the admin endpoint")
        self._stop()

    async def reload(self) -> Outcome:
        """Load the configuration again."""
        self._log.notice("A reload was asked for over the admin endpoint")
        generation = self._generation
        if generation.ledger is None:
            return Outcome.FAILED
        daemon = generation.ledger.tally(DAEMON)
        operations.refuse_while_stopping(daemon)
        self._reload()
        return await operations.outcome(daemon)

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

    async def set_level(self, level: int, service: str | None) -> None:
        self._process.set_level(level, service)

    async def reload(self) -> Outcome:
        return await self._process.reload()

    async def stop(self) -> None:
        # The answer goes out first: without a time to drain, the loop ends with this turn.
        asyncio.get_running_loop().call_later(_STOP_PAUSE, self._process.stop)

    def trace(self, service: str | None, ident: str, wants: Wants) -> Attachment:
        return self._process.attach(Request(Action.TRACE, ident, service=service, wants=wants))


async def _see_off(endpoint: Endpoint) -> None:
    """Close an endpoint, when whoever is shown a trace has had a moment to take its end."""
    endpoint.leave()
    if endpoint.traces:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await endpoint.finished()
    endpoint.end()
    await endpoint.finished()
