"""Links over UDP: messages and packets, loss, a peer that moves, and those who only listen or make noise."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.tls.datagram import DatagramScratch
from culvert.tls.engine import Scratch
from culvert.tls.failure import TlsError
from culvert.vpn.datagram.doorstep import PENDING_SHARE
from culvert.vpn.datagram.doubt import STRANGER
from culvert.vpn.datagram.link import IDENT, DatagramLink
from culvert.vpn.datagram.udp import Arrival, Way
from culvert.vpn.tally import Drop
from culvert.vpn.transport import MESSAGE_LIMIT, VIRTIO, Kind

from ...tls.conftest import Authority
from ...tls.datagram_ends import datagram_context
from .packets import TCP4, UDP, UDP_L4, Flow, completed, pseudo, virtio, words
from .world import LOCALHOST, Middle, Taker, World, rough, world

LOCAL = socket.inet_aton(LOCALHOST)


def test_messages_and_packets_go_both_ways(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            packet = completed(Flow().udp(b"data"))
            client.send(packet)
            await server.until(lambda taker: taker.packets == [(packet, False)])
            server.send(packet)
            await client.until(lambda taker: taker.packets == [(packet, False)])
            client.link.send_message(Kind.PING, b"who")
            await server.until(lambda taker: (Kind.PING, b"who") in taker.messages)
            server.link.send_message(Kind.PONG, b"me")
            await client.until(lambda taker: (Kind.PONG, b"me") in taker.messages)

    asyncio.run(run())


def test_clients_that_come_at_once_are_all_served(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            clients = await asyncio.gather(*(here.client(timeout=20) for _ in range(20)))
            for client in clients:
                client.link.send_message(Kind.HELLO, client.link.ident)
            async with asyncio.timeout(10):
                while sum(bool(taker.messages) for taker in here.takers if taker.link.server) < len(clients):
                    await asyncio.sleep(0.01)
            assert here.faults == []

    asyncio.run(run())


def test_a_packet_of_64_kb_arrives_as_it_was(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            await client.link.settle(2)
            packet = Flow(options=bytes(12)).tcp(random.Random(1).randbytes(60_000))
            client.link.refused(1400 - client.link.way.overhead)
            client.send(packet, virtio(packet, TCP4, 1448))
            await server.until(lambda taker: bool(taker.packets))
            frame, offloaded = server.packets[0]
            assert offloaded
            assert frame[VIRTIO:] == packet

    asyncio.run(run())


def test_the_path_s_mtu_is_found_and_told(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, _ = await here.pair()
            await client.link.settle(2)
            found = client.link.path_mtu
            assert found is not None
            assert found > 16_000
            told: list[int | None] = []
            client.link.on_path = lambda: told.append(client.link.path_mtu)
            client.link.refused(1400)
            assert told == [client.link.path_mtu]
            assert 1180 < (told[0] or 0) < 1280

    asyncio.run(run())


def test_a_packet_that_is_too_long_is_answered_with_how_long_it_may_be(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, _ = await here.pair()
            client.link.refused(1400 - client.link.way.overhead)
            packet = completed(Flow().udp(bytes(1400)))
            client.send(packet)
            ((answer, offloaded),) = client.packets
            assert not offloaded
            assert client.drops == [(Drop.TOO_LONG, 1)]
            assert answer[9] == socket.IPPROTO_ICMP
            assert answer[20:22] == b"\x03\x04"
            assert struct.unpack_from(">H", answer, 26)[0] == client.link.path_mtu
            assert answer[28:].startswith(packet[:28])

    asyncio.run(run())


@pytest.mark.parametrize(("kind", "segment"), [(0, 0), (UDP_L4, 1400)])
def test_datagrams_that_are_too_long_arrive_in_fragments(
    authority: Authority, kind: int, segment: int
) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            client.link.refused(1400 - client.link.way.overhead)
            data = random.Random(1).randbytes(2800 if segment else 1400)
            packet = Flow(dont_fragment=False).udp(data)
            client.send(packet, virtio(packet, kind, segment))
            await server.until(lambda taker: sum(len(one) - 20 for one, _ in taker.packets) >= len(data))
            made: dict[bytes, bytes] = {}
            for one, offloaded in server.packets:
                assert not offloaded
                made[one[4:6]] = made.get(one[4:6], b"") + one[20:]
            assert b"".join(one[8:] for one in made.values()) == data
            for one in made.values():
                assert words(pseudo(packet, UDP, len(one)) + one) == 0xFFFF
            assert not client.drops

    asyncio.run(run())


@pytest.mark.parametrize("offloaded", [False, True])
def test_what_every_link_of_ipv6_carries_gets_through_a_shorter_way(
    authority: Authority, offloaded: bool
) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            client.link.refused(1000)
            assert (client.link.path_mtu or 0) < 600
            packet = Flow(6).udp(random.Random(1).randbytes(1280 - 48))
            if offloaded:
                client.send(packet, virtio(packet))
            else:
                client.send(completed(packet))
            await server.until(lambda taker: taker.packets == [(completed(packet), False)])
            assert not client.packets
            assert not client.drops

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(2))
def test_messages_survive_what_a_rough_way_does(authority: Authority, seed: int) -> None:
    async def run() -> None:
        async with world(authority) as here:
            middle = Middle(here.address)
            try:
                client, server = await here.pair(middle.address)
                middle.treat = rough(seed)
                long = random.Random(seed).randbytes(MESSAGE_LIMIT)
                client.link.send_message(Kind.HELLO, long)
                client.link.send_message(Kind.BYE, b"short")
                await server.until(lambda taker: len(taker.messages) >= 3, 20)
                assert server.messages[1:] == [(Kind.HELLO, long), (Kind.BYE, b"short")]
            finally:
                middle.close()

    asyncio.run(run())


def test_packets_that_come_before_the_first_message_are_nobody_s(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client = await here.client()
            client.send(completed(Flow().udp(b"early")))
            client.link.send_message(Kind.HELLO, b"client")
            async with asyncio.timeout(5):
                while len(here.takers) < 2:
                    await asyncio.sleep(0.01)
            server = next(taker for taker in here.takers if taker.link.server)
            await server.until(lambda taker: bool(taker.messages))
            assert server.packets == []

    asyncio.run(run())


def test_an_end_is_told_with_its_reason(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            client.link.send_message(Kind.BYE, b"enough")
            client.link.close()
            await server.until(lambda taker: bool(taker.reasons))
            assert server.messages[-1] == (Kind.BYE, b"enough")
            assert server.reasons == [""]
            await client.until(lambda taker: taker.reasons == [""])
            assert not here.server._links

    asyncio.run(run())


async def say(taker: Taker, other: Taker, data: bytes) -> None:
    """A packet from one to the other."""
    packet = completed(Flow().udp(data))
    taker.send(packet)
    await other.until(lambda one: (packet, False) in one.packets)


def test_a_client_that_moves_keeps_its_link(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            middle = Middle(here.address)
            try:
                client, server = await here.pair(middle.address)
                moves: list[Way] = []
                server.link.on_move = moves.append
                middle.move()
                await say(client, server, b"from elsewhere")
                async with asyncio.timeout(5):
                    while not moves:
                        await asyncio.sleep(0.01)
                assert moves[0].peer == middle.outside.getsockname()
                await say(server, client, b"to elsewhere")
            finally:
                middle.close()

    asyncio.run(run())


def test_who_sends_on_what_he_heard_gets_nothing_of_the_link(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            middle = Middle(here.address)
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind((LOCALHOST, 0))
            listener.setblocking(False)
            try:
                client, server = await here.pair(middle.address)
                await client.link.settle(2)
                await server.link.settle(2)
                way = server.link.way
                packet = completed(Flow().udp(b"data"))
                before = len(middle.seen)
                middle.treat = lambda datagram: []
                client.send(packet)
                async with asyncio.timeout(5):
                    while len(middle.seen) == before:
                        await asyncio.sleep(0.01)
                heard = middle.seen[before:]
                for _ in range(3):
                    for one in heard:
                        listener.sendto(one, here.address)
                    await asyncio.sleep(0.05)
                assert server.packets == [(packet, False)]
                middle.treat = lambda datagram: [datagram]
                await say(server, client, b"still to the client")
                assert server.link.way == way
                sent = []
                while True:
                    try:
                        sent.append(listener.recv(2000))
                    except BlockingIOError:
                        break
                assert len(sent) <= 1  # one probe, however often it is sent on
                assert sum(map(len, sent)) <= sum(map(len, heard))
            finally:
                listener.close()
                middle.close()

    asyncio.run(run())


def test_noise_is_passed_over(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            noise = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            noise.bind((LOCALHOST, 0))
            noise.setblocking(False)
            for number in range(200):
                head = server.link.ident if number % 2 else os.urandom(IDENT)
                noise.sendto(head + os.urandom(number), here.address)
                noise.sendto(head + b"\x17\xfe\xfd" + os.urandom(number), here.address)
            await say(client, server, b"data")
            await say(server, client, b"data")
            answers = []
            with pytest.raises(BlockingIOError):
                while True:
                    answers.append(noise.recv(2000))
            noise.close()
            assert set(answers) <= {STRANGER}
            assert len(answers) < 20
            assert here.server.strays >= 100
            assert len(here.takers) == 2

    asyncio.run(run())


def test_a_replayed_datagram_is_no_second_packet(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            middle = Middle(here.address)
            try:
                client, server = await here.pair(middle.address)
                middle.treat = lambda datagram: [datagram] * 3
                await say(client, server, b"first")
                await say(client, server, b"second")
                assert len(server.packets) == 2
            finally:
                middle.close()

    asyncio.run(run())


def test_where_nobody_listens_it_is_said_at_once(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            free.bind((LOCALHOST, 0))
            address = free.getsockname()
            free.close()
            with pytest.raises(ConnectionRefusedError):
                await here.client(address)

    asyncio.run(run())


def test_where_nothing_comes_back_it_is_given_up_in_time(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            silent.bind((LOCALHOST, 0))
            with pytest.raises(TimeoutError):
                await here.client(silent.getsockname(), 0.3)
            silent.close()

    asyncio.run(run())


def test_a_handshake_over_a_rough_way_succeeds(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            middle = Middle(here.address)
            middle.treat = rough(3, 0.15)
            try:
                client = await here.client(middle.address, 15)
                assert client.link.engine.version == "DTLSv1.2"
            finally:
                middle.close()

    asyncio.run(run())


def test_a_server_that_has_forgotten_its_client_says_so(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            client.link.doubt.pause = 0.05
            here.server.forget(server.link)
            client.send(completed(Flow().udp(b"data")))
            await client.until(lambda taker: bool(taker.reasons))
            assert client.reasons == ["the server does not know of this link any more"]

    asyncio.run(run())


def test_who_says_so_in_its_place_is_not_believed(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            client.link.doubt.pause = 0.05
            for _ in range(5):
                here.server.udp.send_alone(STRANGER, server.link.way)
                await asyncio.sleep(0.1)
            assert client.reasons == []
            await say(client, server, b"still there")

    asyncio.run(run())


@pytest.mark.parametrize("shut", ["to the server", "to the client", "both"])
def test_a_way_that_is_shut_is_found_out_while_packets_go(authority: Authority, shut: str) -> None:
    async def run() -> None:
        async with world(authority) as here:
            middle = Middle(here.address)
            try:
                client, server = await here.pair(middle.address)
                await client.link.settle(2)
                middle.shut = shut
                await goes_on(client, server)
                assert client.reasons == ["nothing is answered over UDP any more"]
                assert client.link.unanswered
            finally:
                middle.close()

    asyncio.run(run())


async def goes_on(client: Taker, server: Taker, pause: float = 0.05) -> None:
    """Both send for a while, or until the client's link is over."""
    client.link.doubt.pause = pause
    async with asyncio.timeout(8):
        while not client.reasons:
            client.send(completed(Flow().udp(b"data")))
            server.send(completed(Flow().udp(b"data")))
            server.link.send_message(Kind.PING, b"")
            await asyncio.sleep(0.05)


def test_a_way_that_is_open_is_found_so(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            asked = client.link._sealer.records
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await goes_on(client, server, 0.5)
            assert client.reasons == []
            assert client.link._sealer.records > asked

    asyncio.run(run())


def test_who_says_nothing_makes_room_for_others(authority: Authority) -> None:
    """Hundreds have shown their cookies and go no further."""

    async def run() -> None:
        async with world(authority) as here:
            crowded: list[Way] = []
            here.server.listen(here.context.greet, here.welcome, crowded.append)
            silent = [SilentClient(here) for _ in range(PENDING_SHARE + 3)]
            for one in silent:
                one.show_cookie()
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                while len(crowded) < 3:
                    await asyncio.sleep(0.01)
            assert [way.peer for way in crowded] == [one.sock.getsockname() for one in silent[:3]]
            client, server = await here.pair()
            await say(client, server, b"data")
            for one in silent:
                one.sock.close()

    asyncio.run(run())


class SilentClient:
    """It asks for a cookie and shows it, and says no more."""

    def __init__(self, here: World) -> None:
        context = datagram_context(here.authority.trust, client=True)
        self.buffers = DatagramScratch(Scratch())
        self.engine = context.datagram_engine(self.buffers)
        self.greet = here.context.greet
        self.port = here.server
        self.ident = os.urandom(IDENT)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((LOCALHOST, 0))

    def show_cookie(self) -> None:
        assert not self.engine.handshake()
        (hello,) = self.engine.datagrams()
        (answer,) = self._give(hello)
        self.buffers.arrived[: len(answer)] = answer
        self.engine.feed(len(answer))
        assert not self.engine.handshake()
        (hello,) = self.engine.datagrams()
        self._give(hello)

    def _give(self, hello: bytes) -> list[bytes]:
        """Have the port take a datagram; what it answers at once."""
        arrived, way = self.port.buffers.arrived, Way(self.sock.getsockname(), LOCAL)
        arrived[: IDENT + len(hello)] = self.ident + hello
        self.port._sort(Arrival(IDENT + len(hello), IDENT + len(hello), way), {})
        self.sock.setblocking(False)
        try:
            return [self.sock.recv(2000)]
        except BlockingIOError:
            return []


def test_a_client_that_answers_nothing_is_not_waited_for(authority: Authority) -> None:
    async def run() -> None:
        async with world(authority) as here:
            links: list[DatagramLink] = []
            here.server.listen(here.context.greet, links.append)
            silent = SilentClient(here)
            silent.show_cookie()
            (link,) = links
            assert link._handshake is not None
            link._handshake.silence = 0.05
            with pytest.raises(TlsError, match="no answer"):
                await link.shake_hands(5)
            link.release()
            silent.sock.close()

    asyncio.run(run())


def test_any_datagrams_are_sorted(authority: Authority) -> None:
    """The sorting of what comes is given any bytes, cut into datagrams of any size, and goes on."""

    async def run() -> None:
        async with world(authority) as here:
            client, server = await here.pair()
            arrived = here.server.buffers.arrived
            ways = [server.link.way, Way(("192.0.2.1", 1)), Way(("192.0.2.2", 2))]
            heads = [server.link.ident, b"", b"\0\0\0\0", server.link.ident + b"\x17\xfe\xfd\0\1"]

            @given(st.sampled_from(heads), st.binary(max_size=4000), st.integers(1, 2000), st.integers(0, 2))
            @settings(max_examples=300, deadline=None)
            def sort(head: bytes, data: bytes, size: int, way: int) -> None:
                whole = b"".join(head + data[at : at + size] for at in range(0, len(data) or 1, size))
                arrived[: len(whole)] = whole
                here.server._sort(Arrival(len(whole), size + len(head), ways[way]), {})

            sort()
            assert server.reasons == []
            await say(client, server, b"still there")
            assert len(here.takers) == 2

    asyncio.run(run())
