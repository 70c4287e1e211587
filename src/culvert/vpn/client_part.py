"""A VPN's client: it takes the addresses that it is given, and those routes that it was told to accept."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from culvert.config.vpn import Interface, IpAddress, Network, Vpn
from culvert.vpn.claims import listed, within
from culvert.vpn.directory import host
from culvert.vpn.hello import LARGEST_MTU, Hello
from culvert.vpn.hub import Hub
from culvert.vpn.network import NetworkError, Setup
from culvert.vpn.server_part import DEFAULT_MTU
from culvert.vpn.session import MeetingError, Session

_EVERYWHERE = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))


class ClientPart:
    """What a client does at the beginning and at the end of each session.

    Addresses and routes stay while there is no session: what was meant for the VPN does not go elsewhere.
    """

    def __init__(
        self, config: Vpn, hub: Hub, setup: Setup, limit: Callable[[], None], *, bound: bool
    ) -> None:
        """`limit` is as in `ServerPart`; `bound` says that the link itself is bound to another interface, so
        that a route cannot lead it into itself.
        """
        self._config = config
        self._hub = hub
        self._setup = setup
        self._limit = limit
        self._bound = bound
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
        try:
            if not config.addresses:
                self._set_addresses(tuple(ipaddress.ip_interface(address) for address in hello.yours))
            self._set_mtu(session, hello)
            for address in hello.own:
                self._route(host(address))
        except NetworkError as error:
            raise MeetingError(str(error)) from None
        if not hello.udp:
            self._limit()
        accepted, refused = self._take_routes(session, hello)
        before, self.uplink, self._lease = self.uplink, session, hello.lease
        for network in _EVERYWHERE:
            self._hub.directory.put(network, session)
        for network in (*map(host, hello.own), *accepted, *(one.network for one in config.addresses)):
            session.sources.put(network, session)
        self._hub.changed()
        session.addresses = hello.own
        session.log.notice(
            f"VPN: this end has {listed(one.ip for one in self._addresses)}, {session.peer.shown} has "
            f"{listed(hello.own)}, over {session.transport.name} with packets up to {self.mtu} bytes"
            + (f"; behind it: {listed(accepted)}" if accepted else "")
            + (f"; not accepted: {listed(refused)}" if refused else "")
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
            if address not in self._addresses:
                self._setup.add_address(address)
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

    def _take_routes(self, session: Session, hello: Hello) -> tuple[list[Network], list[Network]]:
        """Those of the server's networks that are accepted and set, and those that are not."""
        accepted: list[Network] = []
        refused: list[Network] = []
        for network in hello.routes:
            if not within(network, self._config.accept) or not self._safe(session, network):
                refused.append(network)
                continue
            try:
                self._route(network)
            except NetworkError as error:
                session.log.warning(f"VPN: {error}")
                refused.append(network)
            else:
                accepted.append(network)
        for network in self._routes - set(accepted) - set(map(host, hello.own)):
            self._withdraw(session, network)
        return accepted, refused

    def _safe(self, session: Session, network: Network) -> bool:
        """Whether a route leaves the link itself where it is: it must not lead into the tunnel."""
        if self._bound or not _covers(network, session.peer.outer):
            return True
        session.log.warning(
            f"VPN: a route to {network} would lead the tunnel into itself, for {session.peer.outer} is "
            'there: bind its connection to an interface by "socket = r:SO_BINDTODEVICE=NAME" to have it'
        )
        return False

    def _route(self, network: Network) -> None:
        linked = tuple(address.network for address in self._config.addresses)
        if network not in self._routes and not within(network, linked):
            self._setup.add_route(network)
            self._routes.add(network)

    def _withdraw(self, session: Session, network: Network) -> None:
        self._routes.discard(network)
        try:
            self._setup.remove_route(network)
        except NetworkError as error:
            session.log.warning(f"VPN: {error}")


def _covers(network: Network, address: IpAddress | None) -> bool:
    return address is not None and address.version == network.version and address in network
