"""A VPN's server: it gives out the addresses, and says which networks are behind whom."""

from __future__ import annotations

from culvert.config.vpn import IpAddress, Network, Vpn
from culvert.vpn.claims import Claims, listed, refusals, within
from culvert.vpn.directory import host
from culvert.vpn.hello import Hello
from culvert.vpn.hub import Hub
from culvert.vpn.leases import Grant, Leases, RefusedByServerError
from culvert.vpn.network import NetworkError, Setup
from culvert.vpn.session import MeetingError, Session

DEFAULT_MTU = 1500

DATAGRAM_MTU = 1415
"""What a way of 1500 bytes has room for over DTLS and IPv4."""


ACCEPTED_LIMIT = 64
"""Networks of one client that are accepted: each is a call to the kernel, and everybody waits meanwhile."""


class ServerPart:
    """What a server does at the beginning and at the end of each session."""

    def __init__(self, config: Vpn, hub: Hub, setup: Setup) -> None:
        self._config = config
        self._hub = hub
        self._setup = setup
        self._leases: Leases[Session] = Leases(config)
        self._routes: dict[Network, Session] = {}
        self._claims = _of_configuration(config)
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
        accepted, refused = self._take_routes(session, hello, grant)
        self._hub.permit(session, [*map(host, grant.addresses), *grant.routes, *accepted])
        if not hello.udp:
            session.transport.cut_datagrams()
        session.say(self._answer(session, grant.addresses, grant.lease))
        session.addresses = tuple(grant.addresses)
        behind = [*grant.routes, *accepted]
        session.log.notice(
            f"VPN: {session.peer.shown} has {listed(grant.addresses)} over {session.transport.name}"
            + (f"; behind it: {listed(behind)}" if behind else "")
            + refusals(refused)
        )
        for version in grant.lacking:
            text = f"VPN: tunPool has no address of IPv{version} left for {session.peer.shown}"
            session.log.warning(text)
        if grant.replaced is not None:
            self._replace(grant.replaced, session, grant)

    def _replace(self, older: Session, session: Session, grant: Grant[Session]) -> None:
        if not grant.renewed and older.peer.outer != session.peer.outer:
            session.log.warning(
                f"VPN: {session.peer.shown} takes the place of {older.peer.shown}: both are given the same "
                "addresses, and two hosts with one certificate put each other out again and again"
            )
        self._hub.tally.replaced(older.transport.name, session.transport.name)
        older.part("a newer link takes its place")

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
        versions = {address.version for address in addresses}  # nothing of the other leads anywhere
        return Hello(
            own=tuple(one.ip for one in config.addresses if one.version in versions),
            yours=addresses,
            routes=tuple(route for route in dict.fromkeys(routes) if route.version in versions),
            mtu=max(min(self.mtu, session.transport.path_mtu or self.mtu), min(1280, self.mtu)),
            udp=True,
            lease=lease,
        )

    def _take_routes(
        self, session: Session, hello: Hello, grant: Grant[Session]
    ) -> tuple[list[Network], dict[Network, str]]:
        """Those of a client's networks that are accepted, and those that are not, with the reason."""
        # What the configuration has behind this client needs no word of its own.
        told = [network for network in hello.routes if not within(network, grant.routes)]
        accept = self._config.accept
        refused = {network: "beyond tunAccept" for network in told if not within(network, accept)}
        accepted: list[Network] = []
        wanted = [network for network in told if network not in refused]
        try:
            ways = self._ways(session) if wanted else Claims()
        except NetworkError as error:
            return [], refused | dict.fromkeys(wanted, str(error))
        for network in wanted:
            # What it has already is in no link's way: the new link itself was made with that route in place.
            renewed = grant.replaced is not None and self._routes.get(network) is grant.replaced
            reason = (
                (f"more than {ACCEPTED_LIMIT}" if len(accepted) >= ACCEPTED_LIMIT else None)
                or self._claims.on(network, grant.addresses)
                or self._of_peers(network, session, grant.replaced)
                or (None if renewed else ways.on(network))
                or self._route(session, network)
            )
            if reason is None:
                accepted.append(network)
            else:
                refused[network] = reason
        return accepted, refused

    def _of_peers(self, network: Network, *but: Session | None) -> str | None:
        for known, owner in self._hub.directory.overlapping(network):
            if owner is not None and owner not in but:
                return f"{owner.peer.shown} has {known}"
        return None

    def _ways(self, session: Session) -> Claims:
        """What the links themselves go by: where peers are, and the networks that this machine is in."""
        claims = Claims()
        for network, name in self._setup.neighbourhood():
            claims.add(network, f"{name} is in {network}")
        outers = [one.peer.outer for one in self._hub.sessions]
        claims.add_hosts((one for one in outers if one is not None), "is where a client's link comes from")
        outer = session.peer.outer
        gateway = self._setup.gateway(outer) if outer is not None else None
        claims.add_hosts([gateway] if gateway is not None else [], "is the way to this client")
        return claims

    def _route(self, session: Session, network: Network) -> str | None:
        """Set the route; why it cannot be set, or None."""
        if network not in self._routes:
            try:
                self._setup.add_route(network)
            except NetworkError as error:
                return str(error)
        self._routes[network] = session
        return None


def _of_configuration(config: Vpn) -> Claims:
    """What a server's configuration says is somebody's; the holders are the addresses of its clients."""
    claims = Claims()
    for network in config.pools:
        claims.add(network, f"tunPool gives addresses of {network}")
    for network in config.routes:
        claims.add(network, f"tunRoute has {network} at this end")
    for peer in config.peers:
        claims.add(host(peer), f"tunPeer is {peer}", config.peers)
    for client in config.clients:
        for network in (*map(host, client.addresses), *client.routes):
            claims.add(network, f"tunClient has {network} for {client.name}", client.addresses)
    claims.add_hosts(config.own, "is this end's")
    return claims
