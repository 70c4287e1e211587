"""Opens a service's connections: which targets a connection may try, and in which order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from culvert.address import Address, HostPort, IpAddress, show, unwrapped
from culvert.config.model import Failover, Service
from culvert.errors import BackendError, ConnectError, Unreached
from culvert.log import Channel
from culvert.resolve import InternetAddress, SocketAddress
from culvert.targets.attempt import Attempt, alone
from culvert.targets.dial import Dialer
from culvert.targets.endpoint import Endpoint, Source, endpoints_of
from culvert.targets.health import Health
from culvert.targets.lookups import Find, Lookups
from culvert.targets.preparation import Targets
from culvert.targets.race import Leg, Plan, Race, time_alone
from culvert.targets.report import ClientReport
from culvert.targets.target import Backend, Target

STAND_IN = 2.0
"""Seconds, at most, after which a VPN's client goes by the address that its server had."""

Permit = Callable[[SocketAddress], None]
"""Raises BackendError for an address that must not be connected to."""


@dataclass(frozen=True, slots=True)
class TargetState:
    """How one address of a target fares in this worker, for those who watch over it.

    `address` is empty for a name that has none yet. `due_in` is in how many seconds it will be tried again,
    where it is set aside.
    """

    target: str
    address: str
    open: int
    failures: int
    due_in: float | None

    def __str__(self) -> str:
        """One line for a list."""
        where = f"{self.target} ({self.address})" if self.address else f"{self.target} (no address)"
        due = "" if self.due_in is None else f", set aside for {self.due_in:.0f} s"
        return f"target {where}: {self.open} open, {self.failures} failure(s) in a row{due}"


class Connector:
    """Opens connections to a service's targets, in the order that `failover` asks for.

    What it knows of them, the number of open connections included, is of this worker alone; but what it sets
    aside, the other workers do too.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        service: Service,
        targets: Targets,
        log: Channel,
        find: Find = endpoints_of,
        *,
        show: Callable[[int, str, int, int], None] | None = None,
    ) -> None:
        """`log` is the service's own, for what no connection is the cause of; `find` looks names up.

        `show` is told, by its number and name, how many addresses a target has and how many of them are not
        known to fail. A sole address that fails is then probed as well, or nobody would learn that it answers
        again.
        """
        self.loop = loop
        self.service = service
        # The name server may be beyond the tunnel: without the old address there would be no new link.
        keeps = service.vpn is not None and service.client
        self.lookups = Lookups(loop, find, min(STAND_IN, service.timeout_connect / 2) if keeps else None)
        self.lookups.on_stand_in = lambda target: log.notice(
            f"Service [{service.name}]: no answer for {target}: the addresses that it had are used"
        )
        self.dialer = Dialer(service, targets.sources)
        self.health = Health(service, loop, log, targets.board, self._others)
        self.health.probes_all = show is not None
        now = loop.time()
        self._by_address: dict[Address, Target] = {}
        for address, endpoints in zip(targets.addresses, targets.endpoints, strict=True):
            self._by_address.setdefault(address, Target(address, endpoints or (), now))
        # One that is written twice gets two turns and is one target all the same.
        self._targets = [self._by_address[address] for address in targets.addresses]
        self._only = self._targets[0] if len(self._targets) == 1 and not service.delay else None
        self._turn = 0
        self._show = show
        self._shown: dict[int, tuple[int, int]] = {}
        if show is not None:
            self.health.on_finding = self._show_targets
            self._show_targets()

    @property
    def targets(self) -> Iterable[Target]:
        """The targets, each once."""
        return self._by_address.values()

    def look_up(self) -> None:
        """Have all targets looked up now, whether they are tried or not."""
        for target in self.targets:
            self.lookups.start(target.address)

    def kept(self) -> Iterator[IpAddress]:
        """The internet addresses that the targets had when they were last looked up, where that is kept."""
        for endpoints in self.lookups.kept.values():
            for endpoint in endpoints:
                if isinstance(endpoint.sockaddr, tuple):
                    yield unwrapped(str(endpoint.sockaddr[0]))

    def backends(self) -> Iterator[Backend]:
        """The addresses that are known of all targets."""
        for target in self.targets:
            yield from target.backends

    async def connect(
        self, log: Channel, source: Source | None = None, towards: InternetAddress | None = None
    ) -> tuple[socket.socket, Endpoint]:
        """A connected non-blocking socket and where it leads; `release` that when the connection is over.

        `source` is from where, in place of `local`; `towards` is where to, in place of the service's targets:
        then nothing is to be released.
        Raises ConnectError when no target answers.
        """
        legs = self._legs() if towards is None else [self._given(towards)]
        timeout = self.service.timeout_connect
        attempt = self._first_attempt(legs, log, source)
        if attempt is not None:
            await alone(self.loop, attempt, time_alone(legs, timeout))
            if attempt.outcome == 0:
                self.health.reached(attempt.backend)
                return attempt.sock, attempt.backend.endpoint
        # A target that does not answer a client's own address may miss the way back to that one alone.
        blamed = self.health if source is None and towards is None else None
        report = ClientReport(log, blamed)
        plan = Plan(legs, timeout, self._admit, self._reserve if towards is None else _nothing, source)
        sock, backend = await Race(self.loop, self.dialer, self.lookups, report, plan).run(attempt)
        if towards is None:
            self._by_address[backend.endpoint.target].hold(backend)
        return sock, backend.endpoint

    def _first_attempt(self, legs: list[Leg], log: Channel, source: Source | None) -> Attempt | None:
        """The attempt that a connection begins with; None where it takes more than that to begin."""
        if not legs or not legs[0].backends:
            return None
        backend = legs[0].backends[0]
        try:
            sock = self.dialer.open(backend.endpoint, source)
        except OSError:  # a race fails likewise, and says so
            return None
        log.info(f"s_connect: connecting {show(backend.endpoint.sockaddr)}")
        return Attempt(backend, sock, self.loop.time())

    async def connect_to(
        self, target: HostPort, permit: Permit, log: Channel, source: Source | None = None
    ) -> tuple[socket.socket, Endpoint]:
        """Connect to a target that somebody asked for; its name is looked up now. Nothing is to be released.

        `permit` is asked about each address that the name has, before it is connected to; those that it
        raises BackendError for are passed over. It sees addresses as the resolver gives them: an IPv4 address
        may stand in an IPv6 one (RFC 4291, 2.5.5), and the unspecified address leads to this machine.
        Raises ConnectError, whose cause is FORBIDDEN where no address is left.
        """

        def admit(asked: Target, endpoints: tuple[Endpoint, ...]) -> Sequence[Backend]:
            asked.adopt(_permitted(endpoints, permit), self.loop.time())
            return asked.backends

        legs = [Leg(Target(target, (), self.loop.time()), None)]
        plan = Plan(legs, self.service.timeout_connect, admit, _nothing, source)
        report = ClientReport(log, None)
        sock, backend = await Race(self.loop, self.dialer, self.lookups, report, plan).run()
        return sock, backend.endpoint

    def release(self, endpoint: Endpoint) -> None:
        """One connection that `connect` has made is over."""
        target = self._by_address.get(endpoint.target)
        if target is not None:
            target.release(endpoint)

    def states(self) -> list[TargetState]:
        """How every address of every target fares."""
        now = self.loop.time()
        states = []
        for target in self.targets:
            for backend in target.backends:
                due_in = None if backend.due is None else max(backend.due - now, 0.0)
                address = show(backend.endpoint.sockaddr)
                states.append(
                    TargetState(str(target.address), address, backend.open, backend.failures, due_in)
                )
            if not target.backends:
                states.append(TargetState(str(target.address), "", 0, target.failures, None))
        return states

    # --- the order ---

    def _legs(self) -> list[Leg]:
        if self._only is not None and len(self._only.backends) == 1:
            return [Leg(self._only, self._only.backends)]  # as of most services: there is nothing to choose
        self.health.heed(self.backends)
        if self.service.failover is Failover.PRIO:
            return [leg for target in self._targets if (leg := self._leg(target)) is not None]
        backends = [b for target in self._targets for b in target.backends if b.due is None]
        start = self._turn % max(len(backends), 1)
        self._turn += 1
        backends = backends[start:] + backends[:start]
        if self.service.failover is Failover.LEASTCONN:
            backends.sort(key=_open_connections)
        by_target: dict[Address, list[Backend]] = {}
        for backend in backends:
            by_target.setdefault(backend.endpoint.target, []).append(backend)
        legs = [Leg(self._by_address[address], found) for address, found in by_target.items()]
        return legs + [Leg(target, None) for target in self.targets if not target.backends]

    def _given(self, address: InternetAddress) -> Leg:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        endpoint = Endpoint(HostPort(address[0], address[1]), family, address)
        target = Target(endpoint.target, (endpoint,), self.loop.time())
        return Leg(target, target.backends)

    def _leg(self, target: Target) -> Leg | None:
        """What is to be tried of a target; None where all of it is set aside."""
        if not target.backends or (self.service.delay and isinstance(target.address, HostPort)):
            return Leg(target, None)
        usable = [backend for backend in target.backends if backend.due is None]
        return Leg(target, usable) if usable else None

    def _admit(self, target: Target, endpoints: tuple[Endpoint, ...]) -> Sequence[Backend]:
        if target.adopt(endpoints, self.loop.time()):
            self.health.changed()
        return [backend for backend in target.backends if backend.due is None]

    def _reserve(self) -> Sequence[Backend]:
        """Those that are set aside, the one due soonest first: nobody is refused without an attempt."""
        aside = [backend for backend in self.backends() if backend.due is not None]
        return sorted(aside, key=lambda backend: backend.due or 0.0)

    def _show_targets(self) -> None:
        for index, target in enumerate(self.targets):
            usable = sum(1 for backend in target.backends if not backend.failures)
            if not target.backends and not target.failures:
                usable = 1  # nothing is known of it
            state = (len(target.backends), usable)
            if self._show is not None and self._shown.get(index) != state:
                self._shown[index] = state
                self._show(index, str(target.address), *state)

    def _others(self, backend: Backend) -> tuple[int, int]:
        others = siblings = 0
        for target in self.targets:
            if not target.backends and target.is_name:
                others += 1
            for other in target.backends:
                if other is not backend:
                    others += 1
                    siblings += other.due is None and other.endpoint.target == backend.endpoint.target
        return others, siblings


def _permitted(endpoints: tuple[Endpoint, ...], permit: Permit) -> list[Endpoint]:
    permitted = []
    refusal: BackendError | None = None
    for endpoint in endpoints:
        try:
            permit(endpoint.sockaddr)
        except BackendError as error:
            refusal = error
        else:
            permitted.append(endpoint)
    if refusal is not None and not permitted:
        raise ConnectError(refusal.reason, Unreached.FORBIDDEN) from refusal
    return permitted


def _open_connections(backend: Backend) -> int:
    return backend.open


def _nothing() -> Sequence[Backend]:
    return ()
