"""One worker: an event loop, the services of its generation, and the supervisor's word at the other end."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  asyncio loads it late, and a jail has no modules
import contextlib
import ctypes
import encodings.idna  # noqa: F401  the same
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from culvert import control, listing
from culvert.admin import answers
from culvert.admin.feed import Feeds
from culvert.config.model import GlobalOptions
from culvert.descriptors import DescriptorLimit
from culvert.idents import ConnectionNumbers
from culvert.inherited import Inherited
from culvert.ledger import Ledger
from culvert.log import Channel, Log, shown
from culvert.readiness import Readiness
from culvert.responder import ResponderClient
from culvert.service import Prepared, RunningService, Surroundings
from culvert.spawn import Programs
from culvert.tls.engine import Scratch
from culvert.trace import Tracing

try:  # here and not where it is used: that is in the jail
    import uvloop
except ImportError:
    _new_fast_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_fast_loop = uvloop.new_event_loop

STOP_PATIENCE = 3.0
"""Seconds for which connections that were told to end may take to close; less than the supervisor waits."""

CUT_PATIENCE = 0.5
"""Seconds for the tasks of those that took longer to come to their end, once they are cancelled."""

LOOP_VARIABLE = "CULVERT_LOOP"
"""Environment: `asyncio` has the standard library's event loop used even where uvloop is installed."""

HEED_AFTER = 0.5
"""Seconds after which a worker that is leaving ends by a SIGTERM. One that was sent to all processes of the
daemon, as some service managers do, is the supervisor's: that speaks to the workers sooner."""

_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop: uvloop's where it can be had."""
    if os.environ.get(LOOP_VARIABLE) == "asyncio":
        return asyncio.new_event_loop()
    return _new_fast_loop()


def preload() -> None:
    """Have glibc load what it loads late, while its files can still be seen: the modules that
    nsswitch.conf(5) names for hosts. No name is looked up: that could wait for a network that is down.
    """
    for source in _host_sources():
        with contextlib.suppress(OSError):  # built into glibc, since 2.34 for the usual ones
            ctypes.CDLL(f"libnss_{source}.so.2")


def _host_sources() -> list[str]:
    try:
        lines = Path("/etc/nsswitch.conf").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    hosts = (line.partition("#")[0].split() for line in lines if line.startswith("hosts:"))
    return [word for words in hosts for word in words[1:] if word.isidentifier()]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker has to do. One worker of a generation is its `first`: it runs the services that have
    no `accept`, of which there can be one only."""

    services: Sequence[Prepared]
    options: GlobalOptions
    log: Log
    numbers: ConnectionNumbers
    descriptors: DescriptorLimit | None
    first: bool
    clone: int = -1
    """Of a VPN's process: what its interface is made of."""
    ledger: Ledger | None = None

    @property
    def main(self) -> Channel:
        """Where the worker itself, not one of its connections, writes."""
        return self.log.channel(self.options.debug, "main")


class Worker:
    """The services of one generation at work in this process."""

    def __init__(self, assignment: Assignment) -> None:
        self._loop = asyncio.get_running_loop()
        self._readiness = Readiness(self._loop)
        self._prepared = assignment.services
        log = self._log = assignment.log
        self._main = assignment.main
        self._ledger = assignment.ledger
        self._answering: set[asyncio.Task[None]] = set()
        self._programs = Programs(self._loop, _environment(assignment.options), assignment.descriptors)
        self.tracing = Tracing()
        surroundings = Surroundings(
            self._readiness,
            Scratch(),
            self._programs,
            ResponderClient(self._loop),
            iter(assignment.numbers),
            self.tracing,
            assignment.clone,
        )
        self._services = [
            RunningService(
                prepared,
                surroundings,
                log.channel(prepared.config.debug, prepared.config.name, prepared.config.name),
            )
            for prepared in assignment.services
            if prepared.turn is None or prepared.config.vpn is not None or assignment.first
        ]
        self._feeds = Feeds(self.tracing, self._services)
        by_name = {service.config.name: service for service in self._services}
        for service in self._services:
            for name in service.config.server_names:
                by_name[name.primary].hand_on(name.pattern, service)

    @property
    def open_connections(self) -> int:
        """How many connections a drain waits for: not those that come to their end already, nor those
        of a VPN, which are told at once.
        """
        waited_for = (service for service in self._services if service.config.vpn is None)
        return sum(not one.over for service in waited_for for one in service.connections.values())

    @property
    def services(self) -> Sequence[RunningService]:
        """The services at work."""
        return self._services

    def start(self) -> None:
        """Begin to accept."""
        for service in self._services:
            service.start()

    def take(self, passed: Inherited) -> asyncio.Task[None]:
        """Serve a connection that was handed to this process, by the only service; the task ends with it."""
        self._readiness.pair(passed.stream.fileno(), passed.output)
        return self._services[0].take(passed.stream, passed.address)

    def stop_accepting(self) -> None:
        """Take what waits in the queues, and no new connection after that."""
        for service in self._services:
            service.stop_accepting()
            service.accept_waiting()

    def abandon_listeners(self, *, daemon_ends: bool = False) -> None:
        """Take no new connection, and let go of the listening sockets, which other processes may share.

        While this process has one open, clients can connect to it, and would wait in vain for an answer.
        """
        self.stop_accepting()
        if self._ledger is not None:
            self._ledger.leave()
        for prepared in self._prepared:
            for sock in prepared.listener.sockets if prepared.listener is not None else ():
                sock.close()

    async def drain(self) -> None:
        """Accept nothing more; return when the last connection has ended.

        What waits in the queues is left alone: a successor in the same process may serve it already.
        """
        for service in self._services:
            service.stop_accepting()
        for service in self._services:
            await service.finished()

    async def end(self) -> None:
        """End every connection now, and hang up on the programs that are left."""
        for service in self._services:
            service.end()
        if not await self._finished_within(STOP_PATIENCE):
            for service in self._services:
                service.cut()
            await self._finished_within(CUT_PATIENCE)
        await self._feeds.finish()
        self._programs.end()
        self._readiness.close()

    async def _finished_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for service in self._services:
                    await service.finished()
                return True
        return False

    def answer(self, request: control.Request, sock: socket.socket) -> None:
        """Do what the admin endpoint asks for, and answer by `sock`, which is closed then."""
        if request.action is control.Action.TRACE:
            self._feeds.attach(request, sock)
            return
        task = self._loop.create_task(answers.send(sock, self.perform(request)))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def perform(self, request: control.Request) -> list[dict[str, Any]]:
        """Do what the admin endpoint asks for; the messages to answer with."""
        return list(answers.answers(self._services, request, self._loop.time()))

    def list_connections(self) -> None:
        """Write what goes on here to the log (SIGUSR2)."""
        now = self._loop.time()
        if lost := self._log.lost():
            self._main.notice(f"Log lines lost in process {os.getpid()}: {shown(lost)}")
        for service in self._services:
            self._main.notice(
                f"Service [{service.config.name}] in process {os.getpid()}: "
                f"{len(service.connections)} open; {service.counters}"
            )
            for line in service.vpn_lines():
                self._main.notice(line)
            for target in service.targets():
                if target.failures:
                    self._main.notice(f"Service [{service.config.name}] in process {os.getpid()}: {target}")
            for connection in service.connections.values():
                self._main.notice(listing.line(connection, now))


class Obedient(Protocol):
    """What a child of the supervisor does at its word; `Worker` says what each is."""

    @property
    def open_connections(self) -> int: ...
    def start(self) -> None: ...
    def abandon_listeners(self, *, daemon_ends: bool = False) -> None: ...
    async def drain(self) -> None: ...
    async def end(self) -> None: ...
    def list_connections(self) -> None: ...
    def answer(self, request: control.Request, sock: socket.socket) -> None: ...


class _Obedience:
    """Does what the supervisor says over the control channel until it says to end."""

    def __init__(self, worker: Obedient, log: Log, main: Channel, channel: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._log = log
        self._main = main
        self._channel = channel
        self._spares = self._room()
        self._drained: asyncio.Task[None] | None = None
        self._daemon_ends = False
        self._heeded: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[bytes, Callable[[], None]] = {
            control.ASK: lambda: self._say(control.ALIVE),
            control.DRAIN: self._drain,
            control.FINISH: self._finish,
            control.STOP: self._stop,
            control.LIST: worker.list_connections,
            b"": self._stop,  # the supervisor is gone
        }

    async def run(self) -> None:
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel.fileno(), self._readable)
        for number in _SIGNALS:
            # Meant for the supervisor, though a terminal's Ctrl-C reaches all processes.
            # Handled and not ignored, for an ignored one would be ignored by the programs that are run, too.
            self._loop.add_signal_handler(number, _leave_to_the_supervisor)
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated)
        self._worker.start()
        self._channel.send(control.READY)
        await self._over
        await self._worker.end()

    def _readable(self) -> None:
        # Room for what may come along, also when connections have used up all descriptors.
        for spare in self._spares:
            os.close(spare)
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self._channel, control.MESSAGE_LIMIT, control.DESCRIPTOR_LIMIT
            )
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        else:
            if message == control.LOG:
                self._log.adopt(descriptors)
        finally:
            self._spares = self._room()
        if message.startswith(control.REQUEST):
            self._obey(control.Request.decode(message), descriptors)
        elif message != control.LOG:
            self._answers[message]()

    def _obey(self, request: control.Request, descriptors: list[int]) -> None:
        if request.action is control.Action.LEVEL:
            self._log.set_level(request.level, request.service)
            for descriptor in descriptors:  # closed, it says that it is done
                os.close(descriptor)
        elif descriptors:  # one came along, unless they have run out
            self._worker.answer(request, socket.socket(fileno=descriptors[0]))

    def _room(self) -> list[int]:
        """Descriptors to be closed for those that a message may bring: a log's, or one to answer by."""
        room: list[int] = []
        with contextlib.suppress(OSError):  # they have run out: so many as there are
            for _ in range(1 + len(self._log.descriptors())):
                room.append(os.dup(self._channel.fileno()))
        return room

    def _drain(self) -> None:
        if self._drained is None:
            self._worker.abandon_listeners(daemon_ends=self._daemon_ends)
            self._say(control.counted(control.DRAINING, self._worker.open_connections))
            self._drained = self._loop.create_task(self._worker.drain())
            self._drained.add_done_callback(lambda _: self._end())

    def _finish(self) -> None:
        self._daemon_ends = True
        if self._heeded is not None:
            self._heeded.cancel()
        if self._drained is None:
            self._drain()
        else:
            self._say(control.counted(control.DRAINING, self._worker.open_connections))

    def _terminated(self) -> None:
        """SIGTERM ends a worker whose successors serve, if it is meant for this one."""
        if self._drained is not None and not self._daemon_ends and self._heeded is None:
            self._heeded = self._loop.call_later(HEED_AFTER, self._end_alone)

    def _end_alone(self) -> None:
        self._main.notice(f"Received SIGTERM in process {os.getpid()}, which accepts nothing any more")
        self._stop()

    def _stop(self) -> None:
        if self._over.done():
            return
        count = self._worker.open_connections
        self._say(control.counted(control.ENDING, count))
        if count:
            self._main.notice(f"Ending {count} connection(s) in process {os.getpid()}")
        self._end()

    def _end(self) -> None:
        self._loop.remove_reader(self._channel.fileno())
        if not self._over.done():
            self._over.set_result(None)

    def _say(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: its end of the channel is read next
            self._channel.send(message)


def serve(assignment: Assignment, channel: socket.socket) -> int:
    """Be a worker of a supervisor: serve until `channel` says to end. Returns the exit status."""
    return obey(lambda: Worker(assignment), assignment.log, assignment.main, channel)


def obey(make: Callable[[], Obedient], log: Log, main_log: Channel, channel: socket.socket) -> int:
    """Be the child of a supervisor that `make` makes, in its event loop, until `channel` says to end."""
    log.begin_anew()
    with running_loop() as loop:
        report_faults(loop, main_log)

        async def main() -> None:
            await _Obedience(make(), log, main_log, channel).run()

        loop.run_until_complete(main())
    return 0


@contextlib.contextmanager
def running_loop(
    make: Callable[[], asyncio.AbstractEventLoop] = new_loop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """A new event loop as the thread's current one; closed at the end."""
    loop = make()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def report_faults(loop: asyncio.AbstractEventLoop, main: Channel) -> None:
    """Have what nobody waits for, a callback or a task that fails, told to `main`, not to standard error."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message, error = context["message"], context.get("exception")
        if error is None:
            main.critical(message)
        else:
            main.fault(f"The event loop ({message})", error)

    loop.set_exception_handler(report)


def _environment(options: GlobalOptions) -> Mapping[str, str]:
    return os.environ | dict(options.set_env)


def _leave_to_the_supervisor() -> None:
    pass
