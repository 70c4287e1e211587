"""Packets between an interface and the sessions of peers, over transports that a test looks into.

A pair of sockets that keep the ends of what is written stands in for the interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from culvert.config import loads
from culvert.config.vpn import Vpn
from culvert.log import Channel, Log
from culvert.log.lines import TextLines
from culvert.metrics import Counters
from culvert.tls.engine import Scratch
from culvert.vpn.directory import host
from culvert.vpn.hello import Hello
from culvert.vpn.hub import Hub
from culvert.vpn.server_part import ServerPart
from culvert.vpn.session import END_AFTER, RENEW_AFTER, MeetingError, Peer, Session
from culvert.vpn.tally import Tally
from culvert.vpn.transport import FrameError, Kind
from culvert.vpn.virtio import NO_HEADER

from .company import Machine, Way
from .packets import ipv4, tcp, virtio

HEAD = "[vpn]\naccept = 1\ncert = c\nCAfile = c\nverifyChain = yes\n"
CONFIG = HEAD + "tun = cv0\ntunAddress = 10.9.0.1\ntunPool = 10.9.0.0/24\n"


class Host:
    """The part that a test plays: it gives each session the address that its HELLO asks for."""

    def __init__(self) -> None:
        self.left: list[Session] = []

    def begin(self, session: Session) -> None:
        pass

    def meet(self, session: Session, hello: Hello) -> None:
        if not hello.own:
            raise MeetingError("nobody without an address")

    def leave(self, session: Session) -> None:
        self.left.append(session)


class World:
    """A hub with its interface."""

    def __init__(self, options: str = "") -> None:
        config = loads(CONFIG + options, "vpn.conf").services[0].vpn
        assert isinstance(config, Vpn)
        self.scratch = Scratch()
        self.refused: list[str] = []
        self.hub = Hub(config, self.scratch, self._refuse, Tally(Counters()))
        self.hub.local.put(host(ipaddress.ip_address("10.9.0.1")), True)
        self.kernel, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        inner.setblocking(False)
        self.inner = inner
        self.part = Host()
        self.hub.open(inner.fileno())

    def _refuse(self, reason: str, text: str, log: Channel | None = None) -> None:
        self.refused.append(reason)

    def peer(self, address: str | None = None, keepalive: float | None = None) -> tuple[Session, Way]:
        """A peer that has met this end, and has this address."""
        way = Way(self.scratch)
        log = Log([], TextLines()).channel(loads(CONFIG, "x").options.debug, "vpn")
        session = self.hub.session(self.part, way, Peer(address or "stranger"), log)
        session.begin(keepalive)
        if address is not None:
            own = ipaddress.ip_address(address)
            session.take_message(Kind.HELLO, Hello(own=(own,)).encode())
            self.hub.permit(session, [host(own)])
        return session, way

    async def give(self, *packets: bytes) -> None:
        """What the kernel hands to the interface, and a turn of the loop to take it."""
        for packet in packets:
            self.kernel.send(packet)
        for _ in range(3):
            await asyncio.sleep(0)

    def taken(self) -> list[bytes]:
        """What the interface was given."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.kernel.recv(1 << 17))
        return found

    def serve(self) -> None:
        """Prepare the hub as a server does, on a machine where every address and route can be set."""
        ServerPart(self.hub.config, self.hub, Machine()).prepare()

    def close(self) -> None:
        for session in tuple(self.hub.sessions):
            session.ended("")
        self.hub.close()
        self.kernel.close()
        self.inner.close()


def play(story: Callable[[World], Awaitable[None]], options: str = "") -> None:
    """A story of packets, in a loop of its own."""

    async def run() -> None:
        world = World(options)
        try:
            await asyncio.wait_for(story(world), 10)
        finally:
            world.close()

    asyncio.run(run())


ICMP = ipv4(b"abcdefgh", source="10.9.0.1", to="10.9.0.2")
SEGMENT = virtio(start=20, offset=16) + ipv4(tcp(b"x"), protocol=6, source="10.9.0.1", to="10.9.0.2")


def test_a_packet_goes_to_whom_its_destination_is() -> None:
    async def story(world: World) -> None:
        (_, two), (_, three) = world.peer("10.9.0.2"), world.peer("10.9.0.3")
        await world.give(NO_HEADER + ICMP, SEGMENT)
        assert (two.packets, three.packets) == ([ICMP, SEGMENT], [])
        await world.give(NO_HEADER + ipv4(source="10.9.0.1", to="10.9.0.77"))
        assert world.hub.tally.dropped["unroutable"] == 1

    play(story)


def test_who_sends_to_a_client_that_is_not_there_is_told_so_and_not_too_often() -> None:
    async def story(world: World) -> None:
        world.serve()
        lost = NO_HEADER + ipv4(bytes(8), protocol=17, source="10.9.0.1", to="10.9.0.77")
        await world.give(lost, lost, NO_HEADER + ipv4(source="10.9.0.1", to="192.0.2.1"))
        (message,) = world.taken()
        assert message[len(NO_HEADER) + 20 :][:2] == b"\x03\x01"
        assert world.hub.tally.dropped["unroutable"] == 3

    play(story)


def test_with_one_peer_the_interface_waits_while_the_link_is_busy() -> None:
    async def story(world: World) -> None:
        session, way = world.peer("10.9.0.2")
        way.busy = True
        await world.give(NO_HEADER + ICMP)  # this one was read before that was known
        await world.give(NO_HEADER + ICMP)
        assert way.packets == []
        way.busy = False
        session.ready_again()
        await world.give()
        assert way.packets == [ICMP]

    play(story)


def test_with_several_a_busy_link_holds_up_nobody_else() -> None:
    async def story(world: World) -> None:
        (_, two), (_, three) = world.peer("10.9.0.2"), world.peer("10.9.0.3")
        two.busy = True
        other = ipv4(source="10.9.0.1", to="10.9.0.3")
        await world.give(NO_HEADER + ICMP, NO_HEADER + other)
        assert (two.packets, three.packets) == ([], [other])
        assert world.hub.tally.dropped["busy"] == 1

    play(story)


def test_what_a_peer_may_send_reaches_the_interface() -> None:
    async def story(world: World) -> None:
        session, _ = world.peer("10.9.0.2")
        packet = ipv4(tcp(b"x"), protocol=6)
        session.take_packet(memoryview(packet), False)
        session.take_packet(memoryview(virtio(start=20, offset=16) + packet), True)
        assert world.taken() == [NO_HEADER + packet, virtio(start=20, offset=16) + packet]

    play(story)


@pytest.mark.parametrize(
    ("source", "to", "reason"),
    [
        ("10.9.0.3", "10.9.0.1", "spoofed"),
        ("192.0.2.1", "10.9.0.1", "spoofed"),
        ("10.9.0.2", "10.9.0.3", "strayed"),
        ("10.9.0.2", "192.0.2.1", "strayed"),
    ],
)
def test_what_a_peer_may_not_send_goes_nowhere(source: str, to: str, reason: str) -> None:
    async def story(world: World) -> None:
        (session, _), _ = world.peer("10.9.0.2"), world.peer("10.9.0.3")
        session.take_packet(memoryview(ipv4(source=source, to=to)), False)
        assert (world.taken(), world.refused) == ([], [reason])

    play(story)


def test_peers_reach_one_another_where_they_may() -> None:
    async def story(world: World) -> None:
        (session, _), _ = world.peer("10.9.0.2"), world.peer("10.9.0.3")
        session.take_packet(memoryview(ipv4(source="10.9.0.2", to="10.9.0.3")), False)
        assert len(world.taken()) == 1

    play(story, "tunClientToClient = yes\n")


def test_a_peer_s_own_address_is_nothing_that_it_reaches_through_the_tunnel() -> None:
    async def story(world: World) -> None:
        session, _ = world.peer("10.9.0.2")
        session.take_packet(memoryview(ipv4(source="10.9.0.2", to="10.9.0.2")), False)
        assert (world.taken(), world.refused) == ([], ["strayed"])

    play(story, "tunClientToClient = yes\n")


FULL = "tunRoute = 0.0.0.0/0\ntunClient = laptop: 10.8.0.9, 192.168.7.0/24\n"


@pytest.mark.parametrize(
    "to",
    ["10.9.0.3", "10.9.0.77", "10.8.0.9", "192.168.7.1", "224.0.0.1", "255.255.255.255", "127.0.0.1"],
)
def test_a_wide_route_of_the_server_opens_no_way_to_other_clients(to: str) -> None:
    """Neither to those that are there, nor to what others may be given, nor to a link's neighbours."""

    async def story(world: World) -> None:
        world.serve()
        (session, _), _ = world.peer("10.9.0.2"), world.peer("10.9.0.3")
        for destination in ("10.9.0.1", "192.0.2.1", to):
            session.take_packet(memoryview(ipv4(source="10.9.0.2", to=destination)), False)
        assert (len(world.taken()), world.refused) == (2, ["strayed"])

    play(story, FULL)


def test_what_was_permitted_ends_with_who_had_it() -> None:
    async def story(world: World) -> None:
        (two, _), (three, _) = world.peer("10.9.0.2"), world.peer("10.9.0.3")
        packet = memoryview(ipv4(source="10.9.0.2", to="10.9.0.3"))
        two.take_packet(packet, False)
        three.ended("")
        two.take_packet(packet, False)
        assert (len(world.taken()), world.refused) == (1, ["strayed"])
        assert world.part.left == [three]

    play(story, "tunClientToClient = yes\n")


def test_an_interface_that_was_removed_is_told_once() -> None:
    async def story(world: World) -> None:
        lost: list[OSError] = []
        world.hub.on_lost = lost.append
        reader, writer = os.pipe()
        os.dup2(writer, world.inner.fileno())  # nothing can be read there
        world.hub.pump()
        world.hub.pump()
        os.close(reader)
        os.close(writer)
        assert len(lost) == 1

    play(story)


# --- sessions ---


def test_a_probe_is_answered_with_its_body() -> None:
    async def story(world: World) -> None:
        session, way = world.peer("10.9.0.2")
        session.take_message(Kind.PING, b"abc")
        assert way.messages == [(Kind.PONG, b"abc")]

    play(story)


def test_who_cannot_be_met_is_told_why() -> None:
    async def story(world: World) -> None:
        session, way = world.peer()
        session.take_message(Kind.HELLO, Hello().encode())
        assert (way.messages, way.end) == ([(Kind.BYE, b"nobody without an address")], "closed")
        session.ended("")
        assert world.part.left == []

    play(story)


def test_a_second_hello_is_a_fault() -> None:
    async def story(world: World) -> None:
        session, _ = world.peer("10.9.0.2")
        with pytest.raises(FrameError, match="a second HELLO"):
            session.take_message(Kind.HELLO, Hello().encode())

    play(story)


def test_silence_is_probed_and_ends_the_link_in_time() -> None:
    async def story(world: World) -> None:
        _, way = world.peer("10.9.0.2", keepalive=0.05)
        while not way.end:
            await asyncio.sleep(0.01)
        assert way.messages == [(Kind.PING, b"")] * 3
        assert way.end == "no sign of life for 0.2 s"

    play(story)


def test_any_sign_of_life_keeps_the_link() -> None:
    async def story(world: World) -> None:
        session, way = world.peer("10.9.0.2", keepalive=0.05)
        for _ in range(10):
            await asyncio.sleep(0.03)
            session.take_message(Kind.PONG, b"")
        assert not way.end

    play(story)


def test_the_peer_s_own_probes_are_no_answer() -> None:
    async def story(world: World) -> None:
        session, way = world.peer("10.9.0.2", keepalive=0.05)
        while not way.end:
            session.take_message(Kind.PING, b"")
            await asyncio.sleep(0.01)
        assert way.end == "no sign of life for 0.2 s"

    play(story)


@pytest.mark.parametrize("expires", [True, False])
def test_a_server_ends_a_link_whose_keys_are_long_worn(expires: bool) -> None:
    async def story(world: World) -> None:
        session, way = world.peer("10.9.0.2", keepalive=0.02)
        session.expires, way.overdue = expires, True
        for _ in range(5):
            session.take_message(Kind.PONG, b"")
            await asyncio.sleep(0.02)
        assert way.end == ("closed" if expires else "")
        assert way.messages == ([(Kind.BYE, b"the keys are worn: make a new link")] if expires else [])

    play(story)


def test_a_link_is_overdue_some_time_after_it_should_have_been_renewed() -> None:
    async def story(world: World) -> None:
        session, _ = world.peer("10.9.0.2")
        session.started -= RENEW_AFTER + 1
        assert (session.due, session.overdue) == (True, False)
        session.started -= END_AFTER - RENEW_AFTER
        assert session.overdue

    play(story)


def test_who_has_not_introduced_itself_gets_no_answers() -> None:
    async def story(world: World) -> None:
        session, way = world.peer()
        session.take_message(Kind.PING, b"abc")
        assert way.messages == []

    play(story)
