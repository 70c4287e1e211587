"""Bytes arrive complete and in order, in both roles, on both TLS versions, whatever the peers do."""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert
from .peers import (
    VERSIONS,
    Peer,
    background,
    digest,
    pattern,
    read_all,
    read_exactly,
    read_slowly,
)
from .tunnels import Pair, Tunnels

SMALL_BUFFER = 65536
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def tunnels(
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    event_loop_environment: dict[str, str],
) -> Iterator[Tunnels]:
    """Tunnels as they are by default, and test sockets that take little at a time."""
    folder = tmp_path_factory.mktemp("transfer")
    with Tunnels(folder, certificates, {"default": ""}, event_loop_environment, SMALL_BUFFER) as tunnels:
        yield tunnels


@pytest.fixture
def pair(tunnels: Tunnels, role: str, version: str) -> Iterator[Pair]:
    """One connection, closed after the test."""
    pair = tunnels.open(role, version)
    yield pair
    pair.close()


def send_and_end(peer: Peer, data: bytes) -> None:
    peer.send(data)
    peer.end()


def test_both_directions_at_once(pair: Pair) -> None:
    up, down = pattern(8 * MEGABYTE), pattern(8 * MEGABYTE, seed=2)
    background(send_and_end, pair.plain, up)
    background(send_and_end, pair.tls, down)
    receiving = background(read_all, pair.tls)
    assert digest(read_all(pair.plain)) == digest(down)
    assert digest(receiving.result(PATIENCE)) == digest(up)


@pytest.mark.parametrize("sender", ["plain", "tls"])
def test_a_slow_reader_gets_everything(pair: Pair, sender: str) -> None:
    one, other = pair.ends(sender)
    data = pattern(2 * MEGABYTE)
    sending = background(send_and_end, one, data)
    assert digest(read_slowly(other, rate=4_000_000, limit=1500)) == digest(data)
    sending.result(PATIENCE)


@pytest.mark.parametrize("sender", ["plain", "tls"])
def test_one_byte_writes(pair: Pair, sender: str) -> None:
    one, other = pair.ends(sender)
    data = pattern(3000)

    def dribble() -> None:
        for byte in data:
            one.send(bytes([byte]))
        one.end()

    sending = background(dribble)
    assert read_all(other) == data
    sending.result(PATIENCE)


@pytest.mark.parametrize("sender", ["plain", "tls"])
def test_small_messages_cross_one_by_one(pair: Pair, sender: str) -> None:
    """A byte that is there is a byte that is delivered: nothing waits for the next one."""
    one, other = pair.ends(sender)
    for number in range(200):
        message = pattern(1 + number, seed=number)
        one.send(message)
        assert read_exactly(other, len(message)) == message
        other.send(message)
        assert read_exactly(one, len(message)) == message


def test_many_tiny_records_in_one_write(pair: Pair) -> None:
    data = pattern(5000)
    pair.tls.sock.sendall(pair.tls.seal(data, record=1) + pair.tls.seal_end())
    assert read_all(pair.plain) == data


def test_records_of_every_size_in_few_segments(pair: Pair) -> None:
    """Many records at once, cut anywhere by the segments: none may stay behind in the TLS object."""
    sizes = [random.Random(7).randrange(1, 16385) for _ in range(150)]
    data = pattern(sum(sizes))
    sealed = bytearray()
    start = 0
    for size in sizes:
        sealed += pair.tls.seal(data[start : start + size])
        start += size
    sending = background(pair.tls.sock.sendall, bytes(sealed))
    assert digest(read_exactly(pair.plain, len(data))) == digest(data)
    sending.result(PATIENCE)


def test_a_record_that_arrives_byte_by_byte(pair: Pair) -> None:
    for byte in pair.tls.seal(b"one record"):
        pair.tls.sock.sendall(bytes([byte]))
    assert read_exactly(pair.plain, 10) == b"one record"


@pytest.mark.parametrize("size", [1, 50_000])
def test_data_with_the_last_flight_of_the_handshake(
    tunnels: Tunnels, role: str, version: str, size: int
) -> None:
    data = pattern(size)
    pair = tunnels.open(role, version, with_last_flight=data)
    assert read_exactly(pair.plain, size) == data
    pair.plain.send(b"answer")
    assert read_exactly(pair.tls, 6) == b"answer"
    pair.close()


def test_data_and_end_with_the_last_flight_of_the_handshake(
    tunnels: Tunnels, role: str, version: str
) -> None:
    pair = tunnels.open(role, version, with_last_flight=b"all of it", and_end=True)
    assert read_all(pair.plain) == b"all of it"
    send_and_end(pair.plain, b"answer")
    assert read_all(pair.tls) == b"answer"
    pair.close()


@pytest.mark.parametrize("fin", [False, True])
def test_data_and_close_notify_in_one_segment(pair: Pair, fin: bool) -> None:
    pair.tls.sock.sendall(pair.tls.seal(b"data") + pair.tls.seal_end())
    if fin:
        pair.tls.sock.shutdown(socket.SHUT_WR)
    assert read_all(pair.plain) == b"data"
    send_and_end(pair.plain, b"answer")
    assert read_all(pair.tls) == b"answer"


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_nothing_is_lost_when_megabytes_and_close_follow_a_half_close(
    tunnels: Tunnels, role: str, version: str, first: str
) -> None:
    """One end half-closes, the other then sends megabytes and closes: readable and hung up come together."""
    for round_number in range(3):
        pair = tunnels.open(role, version)
        one, other = pair.ends(first)
        data = pattern(5 * MEGABYTE, seed=round_number)
        one.end()
        assert read_all(other) == b""

        def send_and_close(peer: Peer = other, data: bytes = data) -> None:
            send_and_end(peer, data)
            peer.close()

        sending = background(send_and_close)
        received = read_all(one)
        sending.result(PATIENCE)
        assert digest(received) == digest(data)
        pair.close()


def test_a_stalled_reader_stops_its_sender_and_costs_nothing(tunnels: Tunnels) -> None:
    """Every kind of tunnel is blocked in both directions at once, and the daemon sleeps."""
    pairs = [
        tunnels.open(role, version) for role, version in itertools.product(("server", "client"), VERSIONS)
    ]
    blocked = [background(fill, peer) for pair in pairs for peer in (pair.plain, pair.tls)]
    for sending in blocked:
        assert sending.result(PATIENCE) < 40 * MEGABYTE
    assert idle_cpu(tunnels.daemon) < 0.1
    for pair in pairs:
        pair.close()
    assert idle_cpu(tunnels.daemon) < 0.1


def fill(peer: Peer) -> int:
    """Sends until nothing is taken for a second; how many bytes were."""
    peer.sock.settimeout(1)
    sent = 0
    try:
        while True:
            peer.send(bytes(MEGABYTE))
            sent += MEGABYTE
    except TimeoutError:
        return sent


def idle_cpu(daemon: Culvert) -> float:
    """Processor seconds that the daemon uses in one second."""
    before = daemon.cpu()
    time.sleep(1)
    return daemon.cpu() - before


def test_an_idle_half_closed_connection_costs_nothing(tunnels: Tunnels) -> None:
    pairs = []
    for role, version, first in itertools.product(("server", "client"), VERSIONS, ("plain", "tls")):
        pair = tunnels.open(role, version)
        pair.ends(first)[0].end()
        pairs.append(pair)
    assert idle_cpu(tunnels.daemon) < 0.1
    for pair in pairs:
        pair.close()


def test_a_bulk_transfer_does_not_starve_an_interactive_one(
    tunnels: Tunnels, role: str, version: str
) -> None:
    bulk, interactive = tunnels.open(role, version), tunnels.open(role, version)
    stop = threading.Event()

    def flood() -> None:
        block = bytes(MEGABYTE)
        while not stop.is_set():
            bulk.plain.send(block)
        bulk.plain.end()

    sending, receiving = background(flood), background(read_all, bulk.tls)
    started = time.monotonic()
    for _ in range(20):
        interactive.plain.send(b"ping")
        assert read_exactly(interactive.tls, 4) == b"ping"
        interactive.tls.send(b"pong")
        assert read_exactly(interactive.plain, 4) == b"pong"
    elapsed = time.monotonic() - started
    stop.set()
    sending.result(PATIENCE)
    receiving.result(PATIENCE)
    bulk.close()
    interactive.close()
    assert elapsed < 4
