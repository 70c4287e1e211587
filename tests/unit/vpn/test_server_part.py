"""What a VPN's server accepts of its clients."""

from __future__ import annotations

import asyncio
import ipaddress
import tempfile
from collections.abc import Awaitable, Callable

import pytest

from culvert.config import loads
from culvert.config.vpn import Vpn
from culvert.log import FileSink, Log
from culvert.log.lines import TextLines
from culvert.metrics import Counters
from culvert.tls.engine import Scratch
from culvert.vpn.hello import Hello, decode
from culvert.vpn.hub import Hub
from culvert.vpn.server_part import ACCEPTED_LIMIT, ServerPart
from culvert.vpn.session import Peer, Session
from culvert.vpn.tally import Tally
from culvert.vpn.transport import Kind

from .company import Machine, Way

CONFIG = """\
[vpn]
accept = 1
cert = c
CAfile = c
verifyChain = yes
tun = cv0
tunAddress = 10.9.0.1/24
tunPool = 10.9.0.0/24
tunRoute = 192.168.1.0/24
tunClient = branch: 10.9.0.10, 192.168.10.0/24
tunAccept = 0.0.0.0/0
"""


class Server:
    """A server on a machine whose eth0 is in 198.51.100.0/24 and eth1 in 172.16.0.0/24."""

    def __init__(self, options: str = "") -> None:
        document = loads(CONFIG + options, "vpn.conf")
        config = document.services[0].vpn
        assert isinstance(config, Vpn)
        self.scratch = Scratch()
        self._written = tempfile.TemporaryFile()  # noqa: SIM115  closed with the server
        log = Log([FileSink(self._written.fileno(), None)], TextLines())
        self.log = log.channel(document.options.debug, "vpn")
        self.hub = Hub(config, self.scratch, lambda *_: None, Tally(Counters()))
        self.machine = Machine({"198.51.100.0/24": "eth0", "172.16.0.0/24": "eth1"}, "203.0.113.1")
        self.part = ServerPart(config, self.hub, self.machine)
        self.part.prepare()
        self.set_at_start = frozenset(self.machine.routes)

    def meet(
        self, *routes: str, name: str = "", outer: str = "192.0.2.1", lease: str = ""
    ) -> tuple[Session, Way]:
        """A client that tells of these networks."""
        way = Way(self.scratch)
        peer = Peer(f"{outer}:1", (name,), ipaddress.ip_address(outer))
        session = self.hub.session(self.part, way, peer, self.log)
        session.begin(None)
        networks = tuple(ipaddress.ip_network(route) for route in routes)
        session.take_message(Kind.HELLO, Hello(routes=networks, lease=lease).encode())
        return session, way

    def logged(self) -> str:
        """What the log has."""
        self._written.seek(0)
        return self._written.read().decode()

    def close(self) -> None:
        for session in tuple(self.hub.sessions):
            session.ended("")
        self._written.close()

    @property
    def routes(self) -> set[str]:
        """Those that are set for what clients told."""
        return self.machine.routes - self.set_at_start


def play(story: Callable[[Server], Awaitable[None]], options: str = "") -> None:
    """A story of clients, in a loop of its own."""

    async def run() -> None:
        server = Server(options)
        try:
            await asyncio.wait_for(story(server), 10)
        finally:
            server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "network",
    [
        "10.9.0.10/32",
        "10.9.0.64/26",
        "10.9.0.0/16",
        "192.168.10.0/25",
        "192.168.0.0/16",
        "192.168.1.7/32",
        "10.9.0.1/32",
        "0.0.0.0/0",
    ],
)
def test_a_client_gets_nothing_of_what_is_configured_for_others(network: str) -> None:
    async def story(server: Server) -> None:
        server.meet(network, "192.168.20.0/24")
        assert server.routes == {"192.168.20.0/24"}

    play(story)


def test_a_client_tells_of_what_is_configured_for_itself() -> None:
    async def story(server: Server) -> None:
        session, _ = server.meet("192.168.10.0/24", name="branch")
        assert server.hub.directory.find(ipaddress.ip_address("192.168.10.7").packed) is session

    play(story)


@pytest.mark.parametrize(
    "network",
    ["192.0.2.0/24", "192.0.2.1/32", "192.0.2.77/32", "198.51.100.0/24", "172.16.0.5/32", "203.0.113.1/32"],
)
def test_no_route_leads_the_links_or_this_machine_s_networks_astray(network: str) -> None:
    """Not where a client's own link comes from, nor another's, nor into a network of another interface."""

    async def story(server: Server) -> None:
        server.meet(outer="192.0.2.77")
        server.meet(network)
        assert server.routes == set()

    play(story)


def test_what_one_client_has_behind_it_is_nobody_else_s_though_a_renewed_link_has_a_part_of_it_too() -> None:
    async def story(server: Server) -> None:
        _, way = server.meet("10.1.1.0/24")
        lease = decode(way.messages[0][1]).lease
        server.meet("10.1.2.0/24", outer="192.0.2.2")
        server.meet("10.1.0.0/16", "10.1.1.0/24", lease=lease)
        assert server.routes == {"10.1.1.0/24", "10.1.2.0/24"}

    play(story)


def test_a_renewed_link_keeps_its_networks() -> None:
    async def story(server: Server) -> None:
        old, way = server.meet("10.1.1.0/24")
        server.meet(outer="10.1.1.9")  # through the tunnel: its link works
        server.meet("10.1.1.0/24", lease=decode(way.messages[0][1]).lease)
        old.ended("")
        assert server.routes == {"10.1.1.0/24"}

    play(story)


def test_a_client_has_so_many_networks_accepted_and_no_more() -> None:
    async def story(server: Server) -> None:
        server.meet(*(f"10.1.{number}.0/24" for number in range(100)))
        assert len(server.routes) == ACCEPTED_LIMIT

    play(story)


def test_a_short_mtu_of_the_server_s_is_the_client_s_too() -> None:
    async def story(server: Server) -> None:
        _, way = server.meet()
        assert decode(way.messages[0][1]).mtu == 1000

    play(story, "tunMTU = 1000\n")


def test_a_client_without_an_address_of_a_version_is_told_nothing_of_it() -> None:
    async def story(server: Server) -> None:
        _, way = server.meet(name="branch")
        hello = decode(way.messages[0][1])
        assert {one.version for one in (*hello.own, *hello.routes, *hello.yours)} == {4}

    play(story, "tunAddress = fd09::1/64\ntunRoute = fd01::/64\n")


def test_the_reason_is_told_of_each_network_that_is_not_accepted() -> None:
    async def story(server: Server) -> None:
        server.meet("10.9.0.64/26", "10.1.0.0/16")
        behind = "behind it: 10.1.0.0/16; not accepted: 10.9.0.64/26 (tunPool gives addresses of 10.9.0.0/24)"
        assert behind in server.logged()

    play(story)


@pytest.mark.parametrize(("outer", "with_lease", "told"), [("2", False, 1), ("1", False, 0), ("2", True, 0)])
def test_two_hosts_with_one_name_are_told_of(outer: str, with_lease: bool, told: int) -> None:
    """And not one that comes again: by its lease from elsewhere, or from where it was."""

    async def story(server: Server) -> None:
        _, way = server.meet(name="branch", outer="192.0.2.1")
        lease = decode(way.messages[0][1]).lease if with_lease else ""
        server.meet(name="branch", outer=f"192.0.2.{outer}", lease=lease)
        assert server.logged().count(f"192.0.2.{outer}:1 takes the place of 192.0.2.1:1") == told

    play(story)
