"""One configured service as it runs in one worker: accepts, keeps count, and knows its connections."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from culvert import sockopt
from culvert.access import AccessControl
from culvert.address import show
from culvert.admission import Gate, Place
from culvert.association import Association, Datagrams
from culvert.config import model
from culvert.connection import Connection
from culvert.errors import os_reason
from culvert.failures import Failures
from culvert.libwrap import TcpWrappers
from culvert.listen import BACKLOG, Listener
from culvert.log import Channel
from culvert.metrics import Counters
from culvert.negotiate import protocol_of
from culvert.readiness import Readiness
from culvert.refusals import Refusals, RefusedError
from culvert.requested import RequestedTargets
from culvert.resolve import InternetAddress
from culvert.responder import ResponderClient
from culvert.revocation import Revocation
from culvert.shared import Host, Shared
from culvert.spawn import Programs
from culvert.staple_renewal import StapleRenewal
from culvert.stream import Stream
from culvert.tally import Tally
from culvert.targets import Connector, Targets, TargetState, Upkeep
from culvert.tls.context import TlsContext
from culvert.tls.datagram_context import DatagramContext
from culvert.tls.engine import Scratch
from culvert.trace import Tracing
from culvert.turn import Turn
from culvert.vpn.datagram.link import DatagramLink
from culvert.vpn.datagram.uplink import DatagramRedial
from culvert.vpn.hub import Hub
from culvert.vpn.redial import Redial
from culvert.vpn.tally import Tally as VpnTally
from culvert.vpn.tunnel import Tunnel

BY_ADMIN = "over the admin endpoint"
"""Why a connection ends that was ended there."""

WIND_UP = 3.0
"""Seconds for which such a connection may take to close."""

EXHAUSTED_PAUSE = 0.25
"""Seconds without accepting after descriptors or memory ran out: long enough for some to come back."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made ready for a service before the fork: its files are read and its addresses are bound."""

    config: model.Service
    context: TlsContext
    targets: Targets
    redirect: Targets | None
    """Where clients go whose certificate fails, if anywhere."""
    listener: Listener | None
    turn: Turn | None
    """For a service that runs its program by itself: the right to do so."""
    wrappers: TcpWrappers | None
    gate: Gate | None
    """What limits its connections, if anything does."""
    tally: Tally | None = None
    """Where its numbers are seen by other processes, if they are to be."""
    failures: Failures | None = None
    """Where its failures are seen by them."""
    datagrams: DatagramContext | None = None
    """For a VPN that takes datagrams."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all the services of one worker share."""

    readiness: Readiness
    scratch: Scratch
    programs: Programs
    responders: ResponderClient
    idents: Iterator[int]
    tracing: Tracing
    clone: int = -1
    """What a VPN's interface is made of (`vpn.device.open_clone`)."""


def share(prepared: Prepared, surroundings: Surroundings, log: Channel, counters: Counters) -> Shared:
    """What the connections of one service have in common, in the running loop."""
    config, context, loop = prepared.config, prepared.context, surroundings.readiness.loop
    show = None if prepared.tally is None else counters.show_target
    connector = Connector(loop, config, prepared.targets, log, show=show)
    refusals = Refusals(log, counters.refused, loop.time)
    tunnel = None
    if config.vpn is not None:
        tally = VpnTally(counters)
        drops = Refusals(log, tally.dropped, loop.time)
        hub = Hub(config.vpn, surroundings.scratch, drops.refuse, tally)
        tunnel = Tunnel(config, hub, surroundings.readiness, log)
        tunnel.targets = connector.kept
    return Shared(
        config,
        context,
        Revocation(config, context, surroundings.responders, counters),
        connector,
        Connector(loop, config, prepared.redirect, log) if prepared.redirect is not None else None,
        RequestedTargets(config, connector),
        protocol_of(config),
        surroundings.programs,
        surroundings.scratch,
        surroundings.readiness,
        log,
        counters,
        AccessControl(config, prepared.wrappers),
        refusals,
        prepared.gate,
        surroundings.tracing,
        tunnel,
        [],
        prepared.failures,
    )


class RunningService:
    """A service at work. `start` it; `stop_accepting` for a drain; `connections` are those that live."""

    def __init__(self, prepared: Prepared, surroundings: Surroundings, log: Channel) -> None:
        self.config = prepared.config
        self.counters = Counters(prepared.tally)
        self.connections: dict[asyncio.Task[None], Connection] = {}
        self._log = log
        self._loop = surroundings.readiness.loop
        self._idents = surroundings.idents
        self._shared = share(prepared, surroundings, log, self.counters)
        self._datagrams = (
            Datagrams(self._shared, prepared.datagrams, surroundings.responders)
            if prepared.datagrams is not None
            else None
        )
        self._stapling = StapleRenewal(prepared.config, prepared.context, surroundings.responders, log)
        self._upkeep = [
            Upkeep(connector, log)
            for connector in (self._shared.connector, self._shared.redirect)
            if connector is not None
        ]
        self._background: list[asyncio.Task[None]] = []
        self._turn = prepared.turn
        self._clone = surroundings.clone
        self._sockets = prepared.listener.sockets if prepared.listener is not None else ()
        datagrams = prepared.listener.datagrams if prepared.listener is not None else ()
        self._datagram_sockets = [bound.sock for bound in datagrams]
        # All sockets of a listener are of the internet or of the Unix family.
        family = self._sockets[0].family if self._sockets else socket.AF_UNIX
        self._settings = sockopt.settings(prepared.config.socket_options, "l", family)
        self._stopped = asyncio.Event()
        self._repeating: asyncio.Task[None] | None = None

    def hand_on(self, pattern: str, other: RunningService) -> None:
        """Leave clients who ask for a name like this to another service."""
        self._shared.hosts.append(Host(pattern, other._shared))

    def start(self) -> None:
        """Begin to accept; a service without `accept` begins to run its program, or to connect its VPN.

        Raises ConfigurationError where a VPN cannot have its interface.
        """
        tunnel, turn = self._shared.tunnel, self._turn
        if tunnel is not None:
            tunnel.on_gone = self.stop_accepting
        if tunnel is None or turn is None:
            self._begin()
        elif (waiting := tunnel.start(self._clone, turn, self._begin)) is not None:
            self._background.append(waiting)

    def _begin(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)
        if self._datagrams is not None:
            self._datagrams.listen(self._datagram_sockets, self._welcome)
        if self._stapling.possible:
            self._background.append(self._loop.create_task(self._stapling.run()))
        self._background += [self._loop.create_task(one.run()) for one in self._upkeep if one.possible]
        if self._shared.tunnel is not None:
            if self.config.client:
                self._shared.connector.look_up()
                self._repeating = self._loop.create_task(self._keep_linked(self._shared.tunnel))
        elif self._turn is not None:
            self._log.info(f"Starting exec+connect service [{self.config.name}]")
            self._repeating = self._loop.create_task(self._repeat(self._turn))

    def stop_accepting(self) -> None:
        """Take no new connection, and run no program again. Those that live go on."""
        if not self._stopped.is_set():
            self._stopped.set()
            for task in self._background:
                task.cancel()  # what it has found serves those who are still to come
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())
            if self._datagrams is not None:
                self._datagrams.stop_accepting()
            if self._shared.tunnel is not None:
                self._leave_vpn()

    def _leave_vpn(self) -> None:
        """A VPN's links do not end by themselves: its peers come back to whoever serves next."""
        if self._repeating is not None:
            self._repeating.cancel()
        self._wind_up()

    def take(self, stream: Stream, client: InternetAddress | None) -> asyncio.Task[None]:
        """Serve a connection that somebody else has accepted; the task ends with it."""
        self.counters.accepted += 1
        if self._stapling.possible:
            self._log.info("OCSP stapling: no answer is fetched for a single connection")
        if isinstance(stream, socket.socket):
            settings = sockopt.settings(self.config.socket_options, "l", stream.family)
            try:
                sockopt.apply(stream, settings)
            except OSError as error:  # its other end may be gone: that shows when it is read
                self._log.error(f"Socket options of the connection: {os_reason(error)} ({error.errno})")
        return self._launch(Connection(self._shared, stream, client, self._ident()))

    def accept_waiting(self) -> None:
        """Take the connections that wait in the queues now: closing the sockets would reset them."""
        if self._shared.tunnel is not None:
            return  # they are the next process's, which shares the sockets
        for sock in self._sockets:
            for _ in range(BACKLOG):
                if sock.fileno() < 0 or not self._accept(sock):
                    break

    async def finished(self) -> None:
        """Return when no connection is left, after `stop_accepting`."""
        while tasks := self._tasks():
            await asyncio.wait(tasks)

    def end(self) -> None:
        """End every connection now, in good order: `cut` those that are not `finished` soon."""
        self.stop_accepting()
        self._wind_up()

    def _wind_up(self) -> None:
        for task in self._tasks():
            if task not in self.connections or not self.connections[task].wind_up():
                task.cancel()

    def cut(self) -> None:
        """Close what is left of connections that were told to end."""
        for task in self._tasks():
            task.cancel()

    def end_connection(self, ident: str) -> int:
        """End the connections of this identity, in good order, and at once what was told so before; how many
        there were.
        """
        found = [task for task, connection in self.connections.items() if connection.ident == ident]
        for task in found:
            connection = self.connections[task]
            if not connection.parting and connection.wind_up(BY_ADMIN):
                self._loop.call_later(WIND_UP, task.cancel)
            else:
                task.cancel(BY_ADMIN)
        return len(found)

    def vpn_lines(self) -> list[str]:
        """What goes on in the service's VPN, if it is one."""
        lines = list(self._shared.tunnel.lines()) if self._shared.tunnel is not None else []
        return lines + (self._datagrams.lines() if self._datagrams is not None else [])

    def targets(self) -> list[TargetState]:
        """How the addresses of the service's targets fare in this worker."""
        return self._shared.connector.states()

    def _tasks(self) -> list[asyncio.Task[Any]]:
        tasks: list[asyncio.Task[Any]] = [*self.connections, *self._shared.revocation.tasks()]
        own = [self._repeating] if self._repeating is not None else []
        tasks += [task for task in own + self._background if not task.done()]
        return tasks

    # --- accepting ---

    def _accept(self, listening: socket.socket) -> bool:
        """Take one connection; whether there may be another.

        One for each readiness event: the loop tells again of what still waits, with no call that fails, and
        one worker does not take a burst from the others.
        """
        try:
            accepted, address = listening.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause(error)
                return False
            self._log.info(f"accept: {os_reason(error)} ({error.errno})")  # the client was gone first
            return True
        self._take(accepted, address)
        return True

    def _take(self, accepted: socket.socket, address: InternetAddress | str) -> None:
        client = address if isinstance(address, tuple) else None
        place: Place | None = None
        self.counters.accepted += 1
        try:
            place = self._admit(client)
            accepted.setblocking(False)
            sockopt.apply(accepted, self._settings)
        except RefusedError as error:
            self._turn_away(accepted, address, error)
            return
        except OSError as error:
            self._log.error(f"Connection from {show(address)}: {os_reason(error)} ({error.errno})")
            accepted.close()
            if place is not None:
                place.release()
            return
        task = self._launch(Connection(self._shared, accepted, client, self._ident(), place))
        if place is not None:
            task.add_done_callback(place.release)  # also of one that is cancelled before it begins

    def _admit(self, client: InternetAddress | None) -> Place | None:
        """Hold that whoever has connected may come in; its place under limits. Raises RefusedError."""
        self._shared.access.check_connecting(client)
        gate = self._shared.gate
        if gate is None:
            return None
        return gate.admit(None if self.config.proxy.accept else client)  # what connected may be a proxy

    def _turn_away(
        self, accepted: socket.socket, address: InternetAddress | str, error: RefusedError
    ) -> None:
        """End a connection at once, by an RST: in a flood of them a FIN would leave us their TIME-WAIT."""
        self._shared.refused(show(address), error)
        with contextlib.suppress(OSError):
            sockopt.reset_on_close(accepted)
        accepted.close()

    def _launch(self, connection: Connection) -> asyncio.Task[None]:
        task = self._loop.create_task(self._guard(connection))
        self.connections[task] = connection
        self.counters.open += 1
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self.connections[task]
        self.counters.open -= 1

    async def _guard(self, connection: Connection) -> None:
        """The border at which a fault of Culvert's own ends one connection and nothing else."""
        try:
            await connection.run()
        except Exception:
            connection.log.fault(f"Connection [{connection.ident}]")

    def _pause(self, error: OSError) -> None:
        self._log.warning(
            f"Service [{self.config.name}] accepts nothing for {EXHAUSTED_PAUSE} s: "
            f"{os_reason(error)} ({error.errno})"
        )
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
        self._loop.call_later(EXHAUSTED_PAUSE, self._resume)

    def _resume(self) -> None:
        if not self._stopped.is_set():
            for sock in self._sockets:
                self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _ident(self) -> str:
        match self.config.log_id:
            case model.LogId.SEQUENTIAL:
                return str(next(self._idents))
            case model.LogId.UNIQUE:
                return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
            case model.LogId.THREAD:
                return str(threading.get_native_id())
            case model.LogId.PROCESS:
                return str(os.getpid())

    async def _keep_linked(self, tunnel: Tunnel) -> None:
        if self._datagrams is not None:
            await self._keep_associated(tunnel, self._datagrams)
        else:
            await self._keep_connected(tunnel)

    async def _keep_connected(self, tunnel: Tunnel) -> None:
        """Have one link to a VPN's server at all times, as far as that can be."""
        redial = Redial(lambda: self._launch(Connection(self._shared, None, None, self._ident())))
        tunnel.on_met, tunnel.on_due = redial.met, redial.renew
        await redial.run()

    async def _keep_associated(self, tunnel: Tunnel, datagrams: Datagrams) -> None:
        """As `_keep_connected`, over datagrams where these get through."""

        def launch(over: bool) -> asyncio.Task[None]:
            if over:
                return self._launch(Association(datagrams, None, self._ident()))
            return self._launch(Connection(self._shared, None, None, self._ident()))

        redial = DatagramRedial(launch, self._log, on_fallback=tunnel.hub.tally.fell_back)
        tunnel.on_met, tunnel.on_due, tunnel.on_unanswered = redial.met, redial.renew, redial.unanswered
        await redial.run()

    def _welcome(self, link: DatagramLink) -> None:
        """Serve a client that has shown its cookie."""
        if self._datagrams is None:
            return
        self.counters.accepted += 1
        address = link.way.peer
        try:
            place = self._admit(address)
        except RefusedError as error:
            self._shared.refused(show(address), error)
            link.release()
            return
        task = self._launch(Association(self._datagrams, link, self._ident(), place))
        if place is not None:
            task.add_done_callback(place.release)

    # --- a program in place of clients ---

    async def _repeat(self, turn: Turn) -> None:
        """Run the program over and over, `retry` seconds apart, or once where retry = no."""
        while not turn.take():
            await self._rest(Turn.PAUSE)
            if self._stopped.is_set():
                return
        try:
            while not self._stopped.is_set():
                connection = Connection(self._shared, None, None, self._ident())
                await asyncio.wait([self._launch(connection)])
                if self.config.retry is None:
                    return
                await self._rest(self.config.retry)
        finally:
            turn.give_back()

    async def _rest(self, seconds: float) -> None:
        """Wait this long, but no longer than to `stop_accepting`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
