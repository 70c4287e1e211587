"""Messages that must come do, in order and once, over a way that loses, repeats and mixes up."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.vpn.datagram.delivery import (
    LONGEST_PATIENCE,
    MOST_TRIES,
    PIECE_LIMIT,
    WINDOW,
    DeliveryError,
    Incoming,
    Outgoing,
)
from culvert.vpn.datagram.records import Piece, RecordError, Sort, ack, piece, probe, read, seen
from culvert.vpn.transport import MESSAGE_LIMIT, Kind

Messages = list[tuple[Kind, bytes]]


def carry(messages: Messages, chance: random.Random) -> Messages:
    """What comes of messages over a way that loses a third, and repeats and mixes up the rest."""
    outgoing, incoming = Outgoing(), Incoming()
    found: Messages = []
    now = 0.0
    for kind, body in messages:
        outgoing.put(kind, body, now)
    while outgoing.deadline is not None:
        now = max(now, outgoing.deadline)
        flight = [one for one in outgoing.due(now) for _ in range(chance.choice((0, 1, 2)))]
        chance.shuffle(flight)
        for one in flight:
            found += incoming.take(one)
            if chance.random() < 0.7:
                outgoing.acknowledged(incoming.expected, now)
    return found


@given(
    st.lists(st.tuples(st.sampled_from((Kind.HELLO, Kind.BYE)), st.integers(0, MESSAGE_LIMIT)), max_size=5),
    st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_messages_come_in_order_and_once(sizes: list[tuple[Kind, int]], seed: int) -> None:
    chance = random.Random(seed)
    messages = [(kind, chance.randbytes(size)) for kind, size in sizes]
    assert carry(messages, chance) == messages


def test_a_message_that_is_too_long_is_not_taken() -> None:
    with pytest.raises(ValueError, match="16385 bytes: 16384 at most"):
        Outgoing().put(Kind.HELLO, bytes(MESSAGE_LIMIT + 1), 0.0)


def test_a_peer_that_takes_nothing_is_given_up() -> None:
    outgoing = Outgoing()
    outgoing.put(Kind.HELLO, b"hello", 0.0)
    now = 0.0
    for _ in range(MOST_TRIES):
        assert outgoing.due(now) == [Piece(0, True, b"\x01hello")]
        assert outgoing.due(now) == []
        now = outgoing.deadline or 0.0
    assert now < MOST_TRIES * LONGEST_PATIENCE
    with pytest.raises(DeliveryError, match="acknowledges nothing"):
        outgoing.due(now)


@given(st.integers(0, 2**32 - 1))
def test_an_ack_of_what_was_never_sent_changes_nothing(number: int) -> None:
    outgoing = Outgoing()
    outgoing.put(Kind.HELLO, b"hello", 0.0)
    outgoing.acknowledged(number, 0.0)
    assert (outgoing.deadline is None) == (number == 1)


def test_a_message_that_never_ends_is_refused() -> None:
    incoming = Incoming()
    with pytest.raises(DeliveryError, match="more than 16384 bytes"):
        for number in range(MESSAGE_LIMIT):
            assert incoming.take(Piece(number, False, b"\x01" * PIECE_LIMIT)) == []


@pytest.mark.parametrize("data", [b"", b"\x10packet", b"\xffwhat", b"\x02ping"])
def test_a_message_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(DeliveryError, match="unknown kind"):
        Incoming().take(Piece(0, True, data))


def test_a_piece_that_is_too_long_is_refused() -> None:
    with pytest.raises(DeliveryError, match="1001 bytes"):
        Incoming().take(Piece(0, True, bytes(PIECE_LIMIT + 1)))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=1100)), max_size=60))
def test_any_pieces_end_in_messages_or_the_one_error(found: list[tuple[int, bool, bytes]]) -> None:
    incoming = Incoming()
    try:
        for one in found:
            incoming.take(Piece(*one))
    except DeliveryError:
        return
    assert incoming.expected <= len(found)


def test_no_more_than_the_window_is_under_way_at_once() -> None:
    outgoing = Outgoing()
    outgoing.put(Kind.HELLO, bytes(MESSAGE_LIMIT), 0.0)
    outgoing.put(Kind.HELLO, bytes(MESSAGE_LIMIT), 0.0)
    assert len(outgoing.due(0.0)) == WINDOW


@given(st.binary(max_size=1500))
@settings(max_examples=300)
def test_any_record_is_read_or_refused(record: bytes) -> None:
    try:
        sort, _ = read(record)
    except RecordError:
        return
    assert sort == record[0]


@given(st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=PIECE_LIMIT))
def test_a_piece_is_read_as_it_was_written(number: int, last: bool, data: bytes) -> None:
    assert read(piece(Piece(number, last, data))) == (Sort.PIECE, Piece(number, last, data))
    assert read(ack(number)) == (Sort.ACK, number)


@given(st.binary(min_size=8, max_size=8), st.integers(0, 2000))
def test_a_probe_is_as_long_as_it_is_to_be(token: bytes, length: int) -> None:
    assert len(probe(token, length)) == max(length, 9)
    assert read(probe(token, length)) == (Sort.PROBE, token)
    assert read(seen(token)) == (Sort.SEEN, token)
