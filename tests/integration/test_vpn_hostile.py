"""What a client of a VPN can do that knows TLS and breaks every rule behind it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.vpn.frames import Cutter

from .harness import Culvert, eventually
from .peers import TlsPeer, client_context
from .vpn_world import VpnWorld, running

HELLO, PING, BYE, PACKET, OFFLOADED = 1, 2, 4, 16, 17

GREETING: dict[str, object] = {
    "version": 1,
    "own": [],
    "yours": [],
    "routes": [],
    "mtu": 1500,
    "udp": True,
    "lease": "",
    "fixed": False,
}


def frame(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A message, with a length that may not be its own."""
    return struct.pack(">BH", kind, len(body) if length is None else length) + body


def hello(**changes: object) -> bytes:
    """A client's first message."""
    return frame(HELLO, json.dumps(GREETING | changes).encode())


class Hostile(VpnWorld):
    """A server, a well-behaved client, and a host from which the tests come."""

    daemon: Culvert

    def dial(self) -> TlsPeer:
        """A connection of a client whose certificate is good, after its handshake."""
        sock = self.connection("beta", "10.78.2.1", 4430)
        leaf = self.identities.leaves["beta"]
        peer = TlsPeer(sock, client_context(trust=self.identities.ca.cert, leaf=leaf), server=False)
        peer.handshake()
        return peer

    def rest(self, peer: TlsPeer) -> bytes:
        """All that the server still says, to its close_notify."""
        said = b""
        while data := peer.recv():
            said += data
        peer.close()
        return said

    def answer(self, peer: TlsPeer) -> dict[str, object]:
        """The server's HELLO."""
        data = b""
        while len(data) < 3 or len(data) < 3 + int.from_bytes(data[1:3], "big"):
            data += peer.recv()
        assert data[0] == HELLO
        found: dict[str, object] = json.loads(data[3:])
        return found

    def echoes(self, peer: TlsPeer, own: str) -> bool:
        """Whether a ping from this address has an answer."""
        peer.send(frame(PACKET, packet(own)))
        cutter = Cutter()
        while data := peer.recv():
            for _, body in cutter.feed(memoryview(data)):
                return body[20] == 0  # an echo reply
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """One server for all tests of this module; the good client must never notice anything."""
    made = Hostile(tmp_path_factory.mktemp("vpn"))
    try:
        made.daemon = made.server("tunAddress = 10.9.0.1/24\ntunPool = 10.9.0.0/24\n")
        good = made.client("alpha")
        with running(made.daemon, good):
            yield made
            assert made.pings("alpha", "10.9.0.1")
            assert len(good.log.find("VPN: this end has")) == 1
    finally:
        made.close()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "a message of the unknown kind 71"),
        (frame(99, b""), "a message of the unknown kind 99"),
        (frame(HELLO, b"", 40000), "a HELLO of 40000 bytes, 16384 at most"),
        (frame(PING, bytes(65)), "a PING of 65 bytes, 64 at most"),
        (frame(HELLO, b"hello"), "a HELLO that is no JSON"),
        (frame(HELLO, b"[" * 16000), "a HELLO that is no JSON"),
        (hello(version=2), "a HELLO of version '2', this end speaks 1"),
        (hello(own=["127.0.0.1"]), "no host can have in a VPN"),
        (hello() + hello(), "a second HELLO"),
    ],
)
def test_what_is_no_message_ends_the_link(world: Hostile, sent: bytes, reason: str) -> None:
    mark = world.daemon.log.mark()
    peer = world.dial()
    peer.send(sent)
    world.rest(peer)
    world.daemon.await_log(rf"LOG3.*VPN: 10\.78\.2\.2:\d+: .*{re.escape(reason)}", since=mark)


def checksum(data: bytes) -> bytes:
    """The internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


def packet(source: str, destination: str = "10.9.0.1") -> bytes:
    """An ICMP echo request."""
    ends = bytes(map(int, f"{source}.{destination}".split(".")))
    header = struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 1, 0) + ends
    return header[:10] + checksum(header) + header[12:] + b"\x08\x00\xf7\xff" + bytes(4)


def test_a_packet_before_the_first_message_goes_nowhere(world: Hostile) -> None:
    mark = world.daemon.log.mark()
    peer = world.dial()
    peer.send(frame(PACKET, packet("10.9.0.9")))
    world.daemon.await_log(r"sent from 10\.9\.0\.9, which is not its address .*: dropped", since=mark)
    peer.end()
    world.rest(peer)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(PACKET, b""), "an IP packet of 0 bytes"),
        (frame(PACKET, b"\x60" + bytes(30)), "an IPv6 packet of 31 bytes"),
        (frame(PACKET, packet("10.9.0.9")[:-1]), "an IPv4 packet of 27 bytes that states 28"),
        (
            struct.pack(">BH", OFFLOADED, 28)
            + struct.pack("<BBHHHH", 1, 1, 0, 1, 20, 16)
            + packet("10.9.0.9"),
            "a checksum at 20+16 of 28 bytes",
        ),
    ],
    ids=["nothing", "IPv6 cut", "IPv4 cut", "segments of no TCP"],
)
def test_what_is_no_packet_is_dropped_and_the_link_goes_on(world: Hostile, sent: bytes, reason: str) -> None:
    peer = world.dial()
    peer.send(hello())
    own = world.answer(peer)["yours"]
    assert isinstance(own, list)
    mark = world.daemon.log.mark()

    def provoke() -> bool:
        peer.send(sent)
        return bool(world.daemon.log.find(re.escape(reason), mark))

    eventually(provoke, reason)  # the log has one such line a second
    assert world.echoes(peer, own[0])
    peer.end()
    world.rest(peer)


def test_an_address_that_is_somebody_else_s_is_not_given(world: Hostile) -> None:
    peer = world.dial()
    peer.send(hello(own=["10.9.0.2"]))  # the good client's
    assert world.answer(peer)["yours"] != ["10.9.0.2"]
    peer.end()
    world.rest(peer)
    mark = world.daemon.log.mark()
    peer = world.dial()
    peer.send(hello(own=["10.9.0.2"], fixed=True))
    assert b"this client would have 10.9.0.2" in world.rest(peer)
    world.daemon.await_log("is refused: this client would have 10.9.0.2", since=mark)


def test_a_lease_takes_its_place_over_and_the_older_link_is_ended(world: Hostile) -> None:
    old = world.dial()
    old.send(hello())
    first = world.answer(old)
    new = world.dial()
    new.send(hello(lease=first["lease"]))
    second = world.answer(new)
    assert second["yours"] == first["yours"]
    assert second["lease"] != first["lease"]
    assert b"a newer link takes its place" in world.rest(old)
    assert world.echoes(new, str(second["yours"])[2:-2])
    new.end()
    world.rest(new)


def test_routes_that_nobody_allows_are_not_set(world: Hostile) -> None:
    peer = world.dial()
    peer.send(hello(routes=["0.0.0.0/0", "10.9.0.2/32", "192.168.0.0/16"]))
    world.answer(peer)
    assert world.routes("server", "cvs0") == set()
    peer.end()
    world.rest(peer)


def test_a_reason_cannot_forge_a_line_of_the_log(world: Hostile) -> None:
    mark = world.daemon.log.mark()
    peer = world.dial()
    peer.send(hello() + frame(BYE, b"so long\n2026.11.23 LOG3[main]: forged\x1b[31m" + b"x" * 5000))
    world.rest(peer)
    line = world.daemon.await_log("takes its leave: so long.*forged", since=mark).string
    assert "\x1b" not in line
    assert len(line) < 500


def test_what_comes_behind_the_end_is_nobody_s(world: Hostile) -> None:
    mark = world.daemon.log.mark()
    for message in (frame(BYE, b"again"), hello(fixed=True, own=["1.2.3.4"])):
        peer = world.dial()
        peer.send(hello() * (message[0] == BYE) + message * 100)
        world.rest(peer)
    world.daemon.await_log("is refused", since=mark)
    assert len(world.daemon.log.find("takes its leave: again", since=mark)) == 1
    assert len(world.daemon.log.find("is refused", since=mark)) == 1


def test_one_that_reads_nothing_keeps_nobody_else_out(tmp_path: Path) -> None:
    world = Hostile(tmp_path)
    try:
        world.daemon = world.server("tunAddress = 10.9.0.1/24\ntunPool = 10.9.0.0/24\n")
        with world.daemon:
            deaf = world.dial()
            deaf.send(hello())
            yours = world.answer(deaf)["yours"]
            assert isinstance(yours, list)
            with world.hosts["server"].entered():
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with sender:
                for _ in range(20_000):  # to it, who takes nothing
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        sender.sendto(bytes(1000), (yours[0], 9))
            with world.client("alpha") as good:
                good.await_log("VPN: this end has")
                eventually(lambda: world.pings("alpha", "10.9.0.1"), "a way for another client")
            deaf.close()
    finally:
        world.close()


def test_a_peer_is_asked_no_more_than_it_reads(world: Hostile) -> None:
    """One that has us answer without an end, and reads nothing, is given up."""
    mark = world.daemon.log.mark()
    peer = world.dial()
    peer.sock.settimeout(20)
    peer.send(hello())
    world.answer(peer)
    probes = peer.seal(frame(PING, bytes(64)) * 2000)
    try:
        for _ in range(400):
            peer.sock.sendall(probes)
            probes = peer.seal(frame(PING, bytes(64)) * 2000)
    except OSError:
        pass
    peer.close()
    world.daemon.await_log("the peer makes this end answer, and reads nothing", since=mark)


def test_datagrams_are_cut_for_a_client_whose_kernel_cannot(world: Hostile) -> None:
    segment = 103  # UDP_SEGMENT of linux/udp.h, which the socket module does not name
    peer = world.dial()
    peer.send(hello(udp=False))
    yours = world.answer(peer)["yours"]
    assert isinstance(yours, list)
    with world.hosts["server"].entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.setsockopt(socket.SOL_UDP, segment, 1000)
        sender.sendto(bytes(range(250)) * 80, (yours[0], 9))
    cutter, found = Cutter(), list[tuple[int, bytes]]()
    while len(found) < 20:
        found += [(kind, bytes(body)) for kind, body in cutter.feed(memoryview(peer.recv()))]
    assert {kind for kind, _ in found} == {PACKET}
    assert b"".join(body[28:] for _, body in found) == bytes(range(250)) * 80
    for _, one in found:
        ends = one[12:20] + struct.pack(">HH", 17, len(one) - 20)
        assert checksum(ends + one[20:]) == bytes(2)
    peer.close()
