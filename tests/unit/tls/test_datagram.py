"""DTLS: datagrams in, datagrams out, over ways that lose them, repeat them and mix them up."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.tls.datagram import HANDSHAKE_MOST, HEADER, packed
from culvert.tls.engine import Status
from culvert.tls.failure import take_errors

from .conftest import Authority
from .datagram_ends import DatagramEnd, DatagramPair, Way, datagram_context, straight

SIZES = [1, 20, 84, 1000, 1372, 1500, 9000, 16000]


def pair(authority: Authority, way: Way = straight, *server_options: str) -> DatagramPair:
    return DatagramPair(
        datagram_context(authority.trust, "verifyChain = yes", authority.client_cert, client=True),
        datagram_context(authority.server_cert, *server_options),
        way,
    )


def open_pair(authority: Authority) -> DatagramPair:
    opened = pair(authority).shake_hands()
    assert opened.accepted, (opened.client.failure, opened.server.failure)
    return opened


def test_a_handshake_succeeds_in_dtls_1_2(authority: Authority) -> None:
    opened = open_pair(authority)
    assert {opened.client.open.version, opened.server.open.version} == {"DTLSv1.2"}
    assert opened.client.open.peer_certificate() is not None


def test_no_datagram_of_a_handshake_is_longer_than_every_path_carries(authority: Authority) -> None:
    lengths: list[int] = []

    def measured(flight: list[bytes]) -> Iterable[bytes]:
        lengths.extend(map(len, flight))
        return flight

    opened = pair(authority, measured, authority.trust, "verifyChain = yes").shake_hands()
    assert opened.accepted
    assert max(lengths) <= HANDSHAKE_MOST


def test_a_client_that_is_not_trusted_is_refused(authority: Authority) -> None:
    opened = DatagramPair(
        datagram_context(authority.trust, "verifyChain = yes", client=True),
        datagram_context(authority.server_cert, authority.trust, "verifyChain = yes"),
    ).shake_hands()
    assert "peer did not return a certificate" in str(opened.server.failure)
    assert "alert" in str(opened.client.failure)


def test_the_identity_rules_are_those_of_tls(authority: Authority) -> None:
    opened = DatagramPair(
        datagram_context(authority.trust, "verifyChain = yes", "checkHost = other.test", client=True),
        datagram_context(authority.server_cert),
    ).shake_hands()
    assert opened.client.failure is not None
    assert "verify failed" in str(opened.client.failure)


def test_pre_shared_keys_work(authority: Authority) -> None:
    secrets = authority.folder / "dtls-psk.txt"
    secrets.write_text("someone:0123456789abcdef0123456789abcdef\n")
    secrets.chmod(0o600)
    opened = DatagramPair(
        datagram_context(f"PSKsecrets = {secrets}", "PSKidentity = someone", client=True),
        datagram_context(f"PSKsecrets = {secrets}"),
    ).shake_hands()
    assert opened.accepted, (opened.client.failure, opened.server.failure)


@pytest.mark.parametrize("size", SIZES)
def test_a_datagram_arrives_as_it_was_sent(authority: Authority, size: int) -> None:
    opened = open_pair(authority)
    data = random.Random(size).randbytes(size)
    assert opened.server.unseal(opened.client.seal(data)) == data
    assert opened.client.unseal(opened.server.seal(data)) == data


def test_the_order_does_not_count_and_a_second_copy_is_dropped(authority: Authority) -> None:
    opened = open_pair(authority)
    sealed = [opened.client.seal(bytes([number])) for number in range(50)]
    random.Random(1).shuffle(sealed)
    received = [opened.server.unseal(one) for one in sealed + sealed]
    assert sorted(received[:50]) == [bytes([number]) for number in range(50)]
    assert received[50:] == [b""] * 50
    assert opened.server.open.status is Status.OPEN


def test_what_is_older_than_the_window_is_dropped(authority: Authority) -> None:
    opened = open_pair(authority)
    late, *rest = [opened.client.seal(b"x") for _ in range(100)]
    assert all(opened.server.unseal(one) for one in rest)
    assert opened.server.unseal(late) == b""


def test_a_run_of_many_small_records_ends_where_the_room_does(authority: Authority) -> None:
    opened = open_pair(authority)
    opened.client.buffers.scratch.received[:60] = bytes(60)
    left, engine, room = iter([(0, 60)] * 4000), opened.client.open, len(opened.client.buffers.sealed)
    sealed, more = 0, True
    while more:
        end, size, more = engine.seal_run(left, 0, b"1234")
        assert end <= room
        sealed += end // size if size else 0
    assert (sealed, engine.status) == (4000, Status.OPEN)


@pytest.mark.parametrize("at", [0, 3, 12, 13, 30, -1])
def test_a_record_that_was_tampered_with_is_dropped_without_an_answer(authority: Authority, at: int) -> None:
    opened = open_pair(authority)
    sealed = bytearray(opened.client.seal(b"data"))
    sealed[at] ^= 1
    assert opened.server.unseal(bytes(sealed)) == b""
    assert opened.server.open.datagrams() == []
    assert opened.server.open.status is Status.OPEN
    assert opened.server.unseal(opened.client.seal(b"more")) == b"more"


def test_garbage_is_dropped_without_an_answer(authority: Authority) -> None:
    opened = open_pair(authority)
    for size in (1, 13, 100, 1400):
        assert opened.server.unseal(os.urandom(size)) == b""
        assert opened.server.open.datagrams() == []
    assert opened.server.unseal(opened.client.seal(b"more")) == b"more"
    assert take_errors() == ()


def test_of_several_records_in_a_datagram_the_first_counts(authority: Authority) -> None:
    opened = open_pair(authority)
    together = opened.client.seal(b"first") + opened.client.seal(b"second") + opened.client.seal(b"third")
    assert opened.server.unseal(together) == b"first"
    assert opened.server.open.settle(0) == 2
    assert opened.server.unseal(opened.client.seal(b"next")) == b"next"
    assert opened.server.open.settle(0) == 0


def test_a_close_is_seen(authority: Authority) -> None:
    opened = open_pair(authority)
    opened.client.open.close()
    for one in opened.client.open.datagrams():
        assert opened.server.unseal(one) == b""
    assert opened.server.open.status is Status.CLOSED


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA"]
)
def test_a_record_takes_no_more_room_than_its_capacity_says(authority: Authority, cipher: str) -> None:
    opened = DatagramPair(
        datagram_context(authority.trust, "verifyChain = yes", f"ciphers = {cipher}", client=True),
        datagram_context(authority.server_cert, "ciphers = ALL"),
    ).shake_hands()
    assert opened.accepted, opened.client.failure
    for most in (576, 1232, 1452, 1460):
        capacity = opened.client.open.capacity(most)
        assert most - 80 < capacity < most
        assert len(opened.client.seal(bytes(capacity))) <= most
        assert len(opened.client.seal(bytes(capacity + 16))) > most


def rough(seed: int) -> Way:
    """A way that loses a fifth of what it is given, repeats a fifth, and mixes it all up."""
    chance = random.Random(seed)

    def carry(flight: list[bytes]) -> Iterable[bytes]:
        arriving = [one for one in flight for _ in range(chance.choice((0, 1, 1, 1, 2)))]
        chance.shuffle(arriving)
        return arriving

    return carry


@pytest.mark.parametrize("seed", range(3))
def test_a_handshake_survives_loss_repetition_and_disorder(authority: Authority, seed: int) -> None:
    opened = pair(authority, rough(seed)).shake_hands(patience=20)
    assert opened.accepted, (opened.client.failure, opened.server.failure)
    assert opened.server.unseal(opened.client.seal(b"data")) == b"data"


def test_a_lost_flight_is_said_again_after_a_second(authority: Authority) -> None:
    client = DatagramEnd.of(datagram_context(authority.trust, client=True), client=True)
    (first,) = client.step()
    timeout = client.open.timeout()
    assert timeout is not None
    assert 0.5 < timeout <= 1
    assert client.expire() == []
    assert len(first) < HANDSHAKE_MOST


def test_a_server_s_last_flight_is_said_again_where_it_was_lost(authority: Authority) -> None:
    lost: list[bytes] = []
    opened = pair(authority)

    def losing(flight: list[bytes]) -> Iterable[bytes]:
        if opened.server.finished and not lost:
            lost.extend(flight)
            return []
        return flight

    opened.way = losing
    opened.shake_hands(patience=5)
    assert lost
    assert opened.accepted


@given(st.lists(st.binary(max_size=300), max_size=20), st.binary(max_size=12), st.integers(13, 1500))
@settings(max_examples=200)
def test_records_are_packed_whole_and_in_order(bodies: list[bytes], rest: bytes, most: int) -> None:
    records = [bytes(11) + len(body).to_bytes(2, "big") + body for body in bodies]
    datagrams = packed(b"".join(records) + rest, most)
    assert b"".join(datagrams) == b"".join(records)
    assert all(len(one) <= most or one in records for one in datagrams)
    assert all(len(one) >= HEADER for one in datagrams)


@given(st.binary(max_size=3000))
def test_packing_takes_any_bytes(data: bytes) -> None:
    assert data.startswith(b"".join(packed(data, 1200)))
