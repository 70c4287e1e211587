"""What a VPN's client takes from its server."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

import pytest

from culvert.config import loads
from culvert.config.vpn import Vpn
from culvert.log import Log
from culvert.log.lines import TextLines
from culvert.metrics import Counters
from culvert.tls.engine import Scratch
from culvert.vpn.client_part import ClientPart, Outside
from culvert.vpn.hello import Hello
from culvert.vpn.hub import Hub
from culvert.vpn.session import Peer
from culvert.vpn.tally import Tally
from culvert.vpn.transport import Kind

from .company import Machine, Way

CONFIG = "[vpn]\nclient = yes\nconnect = 1\nverifyChain = yes\nCAfile = c\ncheckHost = a\ntun = cv0\n"


class Client:
    """A client on a machine whose eth0 is in 192.168.1.0/24. Its other server is at 198.51.100.2."""

    def __init__(self, options: str = "", *, bound: bool = False) -> None:
        document = loads(CONFIG + options, "vpn.conf")
        config = document.services[0].vpn
        assert isinstance(config, Vpn)
        self.scratch = Scratch()
        self.log = Log([], TextLines()).channel(document.options.debug, "vpn")
        self.hub = Hub(config, self.scratch, lambda *_: None, Tally(Counters()))
        self.machine = Machine({"192.168.1.0/24": "eth0"}, "203.0.113.1")
        self.machine.name_servers = ["9.9.9.9", "2001:db8::53"]
        other = ipaddress.ip_address("198.51.100.2")
        outside = Outside(lambda: [other], bound)
        self.part = ClientPart(config, self.hub, self.machine, outside)
        self.part.prepare()

    def meet(self, own: list[str], yours: list[str], *routes: str) -> str:
        """The server at 192.0.2.1 says this; returns the reason for which it is refused."""
        way = Way(self.scratch)
        outer = ipaddress.ip_address("192.0.2.1")
        session = self.hub.session(self.part, way, Peer("192.0.2.1:1", (), outer), self.log)
        session.begin(None)
        hello = Hello(
            own=tuple(map(ipaddress.ip_address, own)),
            yours=tuple(map(ipaddress.ip_address, yours)),
            routes=tuple(map(ipaddress.ip_network, routes)),
        )
        session.take_message(Kind.HELLO, hello.encode())
        return "".join(body.decode() for kind, body in way.messages if kind is Kind.BYE)


def play(story: Callable[[Client], Awaitable[None]], options: str = "", *, bound: bool = False) -> None:
    """A story of a server, in a loop of its own."""

    async def run() -> None:
        client = Client(options, bound=bound)
        try:
            await asyncio.wait_for(story(client), 10)
        finally:
            for session in tuple(client.hub.sessions):
                session.ended("")

    asyncio.run(run())


def test_one_address_of_each_version_is_taken_and_no_more() -> None:
    async def story(client: Client) -> None:
        own = ["10.9.0.1", "10.9.0.3", "fd09::1", "1.1.1.1"]
        assert not client.meet(own, ["10.9.0.2", "8.8.8.8", "fd09::2"])
        assert client.machine.routes == {"10.9.0.1/32", "fd09::1/128"}
        assert client.machine.addresses == {"10.9.0.2", "fd09::2"}

    play(story)


def test_more_addresses_are_taken_where_the_configuration_has_a_place_for_them() -> None:
    async def story(client: Client) -> None:
        assert not client.meet(["10.9.0.1", "10.8.0.1", "10.9.0.3"], ["10.9.0.2"])
        assert client.machine.routes == {"10.9.0.1/32", "10.8.0.1/32"}

    play(story, "tunAccept = 10.8.0.0/16\n")


@pytest.mark.parametrize(
    "address", ["9.9.9.9", "2001:db8::53", "192.168.1.7", "192.0.2.1", "198.51.100.2", "203.0.113.1"]
)
def test_no_address_takes_away_what_this_machine_cannot_be_without(address: str) -> None:
    """Its name servers, its networks, its way out, and where its links go."""

    async def story(client: Client) -> None:
        assert f"{address}, which this machine has a use for" in client.meet([address], ["10.9.0.2"])
        assert client.machine.routes == set()

    play(story)


@pytest.mark.parametrize("address", ["9.9.9.9", "192.168.1.7"])
def test_nor_does_one_that_this_end_is_given(address: str) -> None:
    async def story(client: Client) -> None:
        assert f"{address}, which this machine has a use for" in client.meet(["10.9.0.1"], [address])
        assert client.machine.addresses == set()

    play(story)


def test_an_address_that_was_configured_needs_no_second_thought() -> None:
    async def story(client: Client) -> None:
        assert not client.meet(["192.168.1.7"], ["10.9.0.2"])

    play(story, "tunAddress = 10.9.0.2\ntunPeer = 192.168.1.7\n")


ROUTES = ("192.0.2.0/24", "198.51.100.0/24", "192.168.1.0/25", "192.168.0.0/16", "10.0.0.0/8")


def test_no_route_leads_a_link_astray_nor_takes_a_part_of_a_network_nearby() -> None:
    """To this server, or to one that would be next. The wider route leaves the network nearby as it is."""

    async def story(client: Client) -> None:
        assert not client.meet(["10.9.0.1"], ["10.9.0.2"], *ROUTES)
        assert client.machine.routes == {"10.9.0.1/32", "192.168.0.0/16", "10.0.0.0/8"}

    play(story, "tunAccept = 0.0.0.0/0\n")


def test_a_link_that_is_bound_to_an_interface_cannot_be_led_astray() -> None:
    async def story(client: Client) -> None:
        assert not client.meet(["10.9.0.1"], ["10.9.0.2"], "0.0.0.0/0")
        assert client.machine.routes == {"10.9.0.1/32", "0.0.0.0/0"}

    play(story, "tunAccept = 0.0.0.0/0\n", bound=True)


def test_routes_that_a_new_link_brings_no_more_are_taken_away() -> None:
    async def story(client: Client) -> None:
        client.meet(["10.9.0.1"], ["10.9.0.2"], "10.1.0.0/16", "10.2.0.0/16")
        client.meet(["10.9.0.3"], ["10.9.0.2"], "10.2.0.0/16")
        assert client.machine.routes == {"10.9.0.3/32", "10.2.0.0/16"}

    play(story, "tunAccept = 10.0.0.0/8\n")
