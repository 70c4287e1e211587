"""A VPN's client: it takes the addresses that it is given, and those routes that it was told to accept."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from culvert.config.vpn import Interface, IpAddress, Network, Vpn
from culvert.config.vpn_values import LOWEST_MTU_6
from culvert.log import Channel
from culvert.vpn.claims import Claims, listed, refusals, within
from culvert.vpn.directory import host
from culvert.vpn.hello import LARGEST_MTU, Hello
from culvert.vpn.hub import Hub
from culvert.vpn.network import NetworkError, Setup
from culvert.vpn.server_part import DEFAULT_MTU
from culvert.vpn.session import MeetingError, Session

_EVERYWHERE = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))


@dataclass(frozen=True, slots=True)
class Outside:
    """Where the links go: the addresses of all the service's targets that are known; whether they are `bound`
    to another interface, so that no route can lead them into the tunnel.
    """

    targets: Callable[[], Iterable[IpAddress]]
    bound: bool = False


class ClientPart:
    """What a client does at the beginning and at the end of each session.

    Addresses and routes stay while there is no session: what was meant for the VPN does not go elsewhere.
    """

    def __init__(self, config: Vpn, hub: Hub, setup: Setup, outside: Outside) -> None:
        self._config = config
        self._hub = hub
        self._setup = setup
        self._outside = outside
        self._addresses: tuple[Interface, ...] = ()
        self._routes: set[Network] = set()
        self._lease = ""
        self.uplink: Session | None = None
        self.on_met: Callable[[], None] = lambda: None
        """Called with each session that has become the uplink."""
        self.mtu = config.mtu or DEFAULT_MTU

    def prepare(self) -> None:
        """Set what does not depend on the server. Raises NetworkError."""
        self._setup.up(self.mtu)
        self._set_addresses(self._config.addresses)

    def begin(self, session: Session) -> None:
        config = self._config
        path = session.transport.path_mtu
        session.say(
            Hello(
                own=tuple(address.ip for address in self._addresses),
                routes=config.routes,
                mtu=config.mtu or max(min(path or DEFAULT_MTU, LARGEST_MTU), 1280),
                udp=True,
                lease=self._lease,
                fixed=bool(config.addresses),
            )
        )

    def meet(self, session: Session, hello: Hello) -> None:
        self._check(hello)
        config = self._config
        refused: dict[Network, str] = {}
        try:
            # More than one address of each version is one that only tunPeer or tunAccept can be meant for.
            own = self._choose(hello.own, config.peers, refused)
            yours = [one.ip for one in config.addresses] or self._choose(hello.yours, (), refused)
            ways, nearby = self._ways(session), self._nearby(session)
            if hello.mtu < LOWEST_MTU_6 and any(one.version == 6 for one in (*own, *yours)):
                raise MeetingError(
                    f"the server takes {hello.mtu} bytes at most, and IPv6 needs {LOWEST_MTU_6}"
                )
            for address in own:
                named = address in config.peers or within(host(address), config.accept)
                _hold("the server has", address, ways, *(() if named else nearby))
            for address in () if config.addresses else yours:
                _hold("the server gives this end", address, ways, *nearby)
            self._set_mtu(session, hello)
            self._set_addresses(config.addresses or tuple(map(ipaddress.ip_interface, yours)))
            for address in own:
                self._route(host(address))
        except NetworkError as error:
            raise MeetingError(str(error)) from None
        if not hello.udp:
            session.transport.cut_datagrams()
        accepted = self._take_routes(session, hello, ways, nearby[0], refused)
        self._withdraw(session.log, self._routes - set(accepted) - set(map(host, own)))
        before, self.uplink, self._lease = self.uplink, session, hello.lease
        for network in _EVERYWHERE:
            self._hub.directory.put(network, session)
        for network in (*map(host, own), *accepted, *(one.network for one in config.addresses)):
            session.sources.put(network, session)
        self._hub.changed()
        session.addresses = tuple(own)
        session.log.notice(
            f"VPN: this end has {listed(one.ip for one in self._addresses)}, {session.peer.shown} has "
            f"{listed(own)}, over {session.transport.name} with packets up to {self.mtu} bytes"
            + (f"; behind it: {listed(accepted)}" if accepted else "")
            + refusals(refused)
        )
        if before is not None:
            self._hub.tally.replaced(before.transport.name, session.transport.name)
            before.part("a newer link takes its place")
        self.on_met()

    def path_changed(self, session: Session) -> None:
        """The way of a link carries other packets than before."""
        if session is self.uplink and session.hello is not None:
            try:
                self._set_mtu(session, session.hello)
            except NetworkError as error:
                session.log.warning(f"VPN: {error}")

    def leave(self, session: Session) -> None:
        if self.uplink is session:
            self.uplink = None

    def _check(self, hello: Hello) -> None:
        """Hold that this is the server that was meant. Raises MeetingError."""
        if not hello.own or not hello.yours:
            raise MeetingError("the server names no addresses")
        missing = set(self._config.peers) - set(hello.own)
        if missing:
            raise MeetingError(
                f"the server has {listed(hello.own)}, and tunPeer is {listed(self._config.peers)}"
            )
        wanted = {address.ip for address in self._config.addresses}
        if wanted and wanted != set(hello.yours):
            raise MeetingError(f"the server gives {listed(hello.yours)}, and tunAddress is {listed(wanted)}")
        if set(hello.own) & set(hello.yours):
            raise MeetingError("the server gives an address that it has itself")

    def _set_addresses(self, wanted: tuple[Interface, ...]) -> None:
        # The new ones first: with its last address an interface loses its routes of IPv4.
        for address in wanted:
            self._setup.add_address(address)  # also one that is known: the interface may have lost it
            if address not in self._addresses:
                self._addresses = (*self._addresses, address)
        for address in set(self._addresses) - set(wanted):
            self._setup.remove_address(address)
        self._addresses = wanted
        own = [host(address.ip) for address in self._addresses]
        self._hub.local.remove(True)
        for network in (*own, *self._config.routes):
            self._hub.local.put(network, True)
        self._hub.changed()

    def _set_mtu(self, session: Session, hello: Hello) -> None:
        own = self._config.mtu or max(min(session.transport.path_mtu or DEFAULT_MTU, LARGEST_MTU), 1280)
        mtu = min(own, hello.mtu)
        if mtu != self.mtu:
            self._setup.up(mtu)
            self.mtu = mtu

    def _choose(
        self, told: tuple[IpAddress, ...], peers: tuple[IpAddress, ...], refused: dict[Network, str]
    ) -> list[IpAddress]:
        """The first address of each version, and those that the configuration has a place for."""
        chosen: list[IpAddress] = []
        for address in sorted(dict.fromkeys(told), key=lambda one: one not in peers):
            placed = address in peers or within(host(address), self._config.accept)
            if placed or all(address.version != one.version for one in chosen):
                chosen.append(address)
            else:
                refused[host(address)] = "one more address, beyond tunAccept"
        return chosen

    def _ways(self, session: Session) -> Claims:
        """Where the links go, to this server and to the others: no route may lead them into the tunnel."""
        claims = Claims()
        if not self._outside.bound:
            claims.add_hosts(self._outside.targets(), "is there, where the tunnel itself goes")
            outer = session.peer.outer
            claims.add_hosts([outer] if outer is not None else [], "is there, where the tunnel itself goes")
        return claims

    def _nearby(self, session: Session) -> tuple[Claims, Claims]:
        """The networks of other interfaces, and the hosts by which this machine finds its way. Raises
        NetworkError.
        """
        networks, hosts = Claims(), Claims()
        for network, name in self._setup.neighbourhood():
            if network.num_addresses > 1:  # of this machine's addresses, rtnetlink has its own word
                networks.add(network, f"{name} is in {network}")
        hosts.add_hosts(self._setup.resolvers(), "is a name server of this machine")
        outer = session.peer.outer
        gateway = self._setup.gateway(outer) if outer is not None else None
        hosts.add_hosts([gateway] if gateway is not None else [], "is the way to the server")
        return networks, hosts

    def _take_routes(
        self, session: Session, hello: Hello, ways: Claims, networks: Claims, refused: dict[Network, str]
    ) -> list[Network]:
        """Those of the server's networks that are accepted, and set."""
        accepted: list[Network] = []
        for network in hello.routes:
            reason = None if within(network, self._config.accept) else "beyond tunAccept"
            if reason is None and (reason := ways.on(network)) is not None:
                session.log.warning(
                    f"VPN: a route to {network} would lead the tunnel into itself, for {reason}: bind its "
                    'connection to an interface by "socket = r:SO_BINDTODEVICE=NAME" to have it'
                )
            reason = reason or networks.around(network)
            if reason is None:
                try:
                    self._route(network)
                except NetworkError as error:
                    session.log.warning(f"VPN: {error}")
                    reason = str(error)
            if reason is None:
                accepted.append(network)
            else:
                refused[network] = reason
        return accepted

    def _route(self, network: Network) -> None:
        linked = tuple(address.network for address in self._config.addresses)
        if not within(network, linked):
            self._setup.add_route(network)  # also one that is known, likewise
            self._routes.add(network)

    def _withdraw(self, log: Channel, networks: Iterable[Network]) -> None:
        for network in tuple(networks):
            self._routes.discard(network)
            try:
                self._setup.remove_route(network)
            except NetworkError as error:
                log.warning(f"VPN: {error}")


def _hold(what: str, address: IpAddress, ways: Claims, *nearby: Claims) -> None:
    """Hold an address that is to be set against what this machine cannot be without. Raises MeetingError."""
    reason = ways.on(host(address))
    for claims in nearby:
        reason = reason or claims.around(host(address))
    if reason is not None:
        raise MeetingError(f"{what} the address {address}, which this machine has a use for: {reason}")
