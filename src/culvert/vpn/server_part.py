"""A VPN's server: it gives out the addresses, and says which networks are behind whom."""

from __future__ import annotations

from collections.abc import Callable

from culvert.config.vpn import IpAddress, Network, Vpn
from culvert.vpn.directory import host
from culvert.vpn.hello import Hello
from culvert.vpn.hub import Hub
from culvert.vpn.leases import Leases, RefusedByServerError
from culvert.vpn.network import NetworkError, Setup
from culvert.vpn.session import MeetingError, Session

DEFAULT_MTU = 1500

DATAGRAM_MTU = 1415
"""What a way of 1500 bytes has room for over DTLS and IPv4."""


def within(network: Network, allowed: tuple[Network, ...]) -> bool:
    """Whether a network lies in one of those that are allowed."""
    return any(
        network.subnet_of(one)  # type: ignore[arg-type]  # of the same version
        for one in allowed
        if one.version == network.version
    )


def listed(things: object) -> str:
    """Addresses or networks as the log has them."""
    return ", ".join(map(str, things)) or "none"  # type: ignore[call-overload]


class ServerPart:
    """What a server does at the beginning and at the end of each session."""

    def __init__(self, config: Vpn, hub: Hub, setup: Setup, limit: Callable[[], None]) -> None:
        """`limit` has the interface leave no UDP to be segmented, for the sake of a client that cannot."""
        self._config = config
        self._hub = hub
        self._setup = setup
        self._limit = limit
        self._leases: Leases[Session] = Leases(config)
        self._routes: dict[Network, Session] = {}
        self.mtu = config.mtu or (DATAGRAM_MTU if config.datagrams else DEFAULT_MTU)

    def prepare(self) -> None:
        """Set what does not depend on who comes: addresses, and routes to all that clients can have.

        Raises NetworkError.
        """
        config, setup = self._config, self._setup
        setup.up(self.mtu)
        for address in config.addresses:
            setup.add_address(address)
        linked = tuple(address.network for address in config.addresses)
        known = [host(peer) for peer in config.peers]
        known += [host(address) for client in config.clients for address in client.addresses]
        for network in dict.fromkeys((*config.pools, *known)):
            if not within(network, linked) and (network in config.pools or not within(network, config.pools)):
                setup.add_route(network)
        for client in config.clients:
            for network in client.routes:
                setup.add_route(network)
        local = self._hub.local
        for network in config.routes:
            local.put(network, True)
        # Clients' all, whether they are there or not: behind them stands what is this end's own.
        for network in (
            *known,
            *config.pools,
            *(route for client in config.clients for route in client.routes),
        ):
            local.put(network, False)
        for own in config.own:
            local.put(host(own), True)

    def begin(self, session: Session) -> None:
        """A client speaks first."""

    def meet(self, session: Session, hello: Hello) -> None:
        try:
            grant = self._leases.grant(session, session.peer.names, hello)
        except RefusedByServerError as error:
            raise MeetingError(str(error)) from None
        accepted, refused = self._take_routes(session, hello, grant.routes, grant.replaced)
        self._hub.permit(session, [*map(host, grant.addresses), *grant.routes, *accepted])
        if not hello.udp:
            self._limit()
        session.say(self._answer(session, grant.addresses, grant.lease))
        session.addresses = tuple(grant.addresses)
        behind = [*grant.routes, *accepted]
        session.log.notice(
            f"VPN: {session.peer.shown} has {listed(grant.addresses)} over {session.transport.name}"
            + (f"; behind it: {listed(behind)}" if behind else "")
            + (f"; not accepted: {listed(refused)}" if refused else "")
        )
        if grant.replaced is not None:
            self._hub.tally.replaced(grant.replaced.transport.name, session.transport.name)
            grant.replaced.part("a newer link takes its place")

    def path_changed(self, session: Session) -> None:
        """The way to one client carries other packets than before: the interface is that of all of them."""

    def leave(self, session: Session) -> None:
        self._leases.release(session)
        for network in [network for network, owner in self._routes.items() if owner is session]:
            del self._routes[network]
            try:
                self._setup.remove_route(network)
            except NetworkError as error:
                session.log.warning(f"VPN: {error}")

    def _answer(self, session: Session, addresses: tuple[IpAddress, ...], lease: str) -> Hello:
        config = self._config
        routes = (*config.routes, *(config.pools if config.between_clients else ()))
        return Hello(
            own=tuple(one.ip for one in config.addresses),
            yours=addresses,
            routes=tuple(dict.fromkeys(routes)),
            mtu=max(min(self.mtu, session.transport.path_mtu or self.mtu), 1280),
            udp=True,
            lease=lease,
        )

    def _take_routes(
        self, session: Session, hello: Hello, granted: tuple[Network, ...], replaced: Session | None
    ) -> tuple[list[Network], list[Network]]:
        """Those of a client's networks that are accepted, and those that are not."""
        accepted: list[Network] = []
        refused: list[Network] = []
        for network in hello.routes:
            if within(network, granted):
                continue  # the configuration says so by itself
            owners = [owner for _, owner in self._hub.directory.overlapping(network)]
            theirs = any(owner is not None and owner is not replaced for owner in owners)
            taken = theirs or any(True for _ in self._hub.local.overlapping(network))
            if taken or not within(network, self._config.accept) or not self._route(session, network):
                refused.append(network)
            else:
                accepted.append(network)
        return accepted, refused

    def _route(self, session: Session, network: Network) -> bool:
        if network not in self._routes:
            try:
                self._setup.add_route(network)
            except NetworkError as error:
                session.log.warning(f"VPN: {error}")
                return False
        self._routes[network] = session
        return True
