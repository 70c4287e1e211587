"""The traces that each worker is to join: kept as long as their reader is there, and not too many."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from culvert.attached import MOST, Attached

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def attached() -> Iterator[Attached]:
    attached = Attached()
    yield attached
    attached.close()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """The sockets of one trace more than may be, each the reader's end first."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(MOST + 1)]
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_a_trace_is_kept_with_a_copy_of_its_socket(attached: Attached, pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    assert attached.add(b"see", theirs.fileno())
    theirs.close()
    ((message, sock),) = attached
    sock.send(b"stream")
    assert (message, ours.recv(10)) == (b"see", b"stream")


def test_there_are_not_too_many(attached: Attached, pairs: list[Pair]) -> None:
    assert [attached.add(b"", theirs.fileno()) for _, theirs in pairs] == [True] * MOST + [False]


def test_who_has_gone_makes_room(attached: Attached, pairs: list[Pair]) -> None:
    for _, theirs in pairs[:MOST]:
        attached.add(b"", theirs.fileno())
    pairs[3][0].close()
    assert len(list(attached)) == MOST - 1
    assert attached.add(b"", pairs[MOST][1].fileno())


def test_at_the_end_the_reader_hears_it(attached: Attached, pairs: list[Pair]) -> None:
    ours, theirs = pairs[0]
    attached.add(b"", theirs.fileno())
    theirs.close()
    attached.close()
    assert ours.recv(10) == b""
    assert not attached.add(b"", ours.fileno())
