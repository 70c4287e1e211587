"""Packets of IPv6 in parts: made again in any order, and nothing of a peer's is kept for ever."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.vpn.datagram.parts import LEAST_MTU, PARTS_MOST, UNDER_WAY, Parts
from culvert.vpn.datagram.records import RecordError, Sort

from .packets import Flow, completed


def packet(size: int = LEAST_MTU) -> bytes:
    return completed(Flow(6).udp(random.Random(size).randbytes(size - 48)))


@given(st.integers(60, LEAST_MTU), st.integers(200, 1300), st.randoms())
def test_parts_make_the_packet_again(size: int, room: int, chance: random.Random) -> None:
    records = Parts().cut(packet(size), room)
    assert all(len(one) <= room for one in records)
    chance.shuffle(records)
    other = Parts()
    assert [other.take(one) for one in records] == [None] * (len(records) - 1) + [packet(size)]


@pytest.mark.parametrize("given", [packet() + b"more", completed(Flow(4).udp(bytes(1000)))])
def test_what_may_be_refused_is_not_cut(given: bytes) -> None:
    assert Parts().cut(given, 1000) == []


def test_a_way_that_is_too_short_for_all_of_it_carries_none_of_it() -> None:
    assert Parts().cut(packet(), 100) == []


def test_parts_of_packets_that_never_come_make_room_for_others() -> None:
    sender, other = Parts(), Parts()
    flights = [sender.cut(packet(), 1000) for _ in range(UNDER_WAY + 1)]
    for first, _ in flights:
        assert other.take(first) is None
    assert other.take(flights[0][1]) is None
    assert other.take(flights[-1][1]) == packet()


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_any_parts_are_taken_or_refused(found: list[bytes]) -> None:
    parts = Parts()
    for one in found:
        try:
            made = parts.take(bytes((Sort.PART,)) + one)
        except RecordError:
            continue
        assert made is None or 0 < len(made) <= LEAST_MTU
    assert len(parts._under_way) <= UNDER_WAY
    assert all(len(kept) <= PARTS_MOST for kept in parts._under_way.values())
