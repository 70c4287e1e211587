"""Messages in a stream."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.vpn.frames import LONGEST, Cutter, message
from culvert.vpn.transport import FrameError, Kind


def cut(pieces: list[bytes]) -> list[tuple[Kind, bytes]]:
    """The messages in these pieces of a stream."""
    cutter = Cutter()
    return [(kind, bytes(body)) for piece in pieces for kind, body in cutter.feed(memoryview(piece))]


def outcome(pieces: list[bytes]) -> tuple[list[tuple[Kind, bytes]], str]:
    """The messages up to the first fault, and what that says."""
    cutter = Cutter()
    found = []
    try:
        for piece in pieces:
            for kind, body in cutter.feed(memoryview(piece)):
                found.append((kind, bytes(body)))
                assert cutter.kept <= LONGEST + len(piece)
    except FrameError as error:
        return found, str(error)
    return found, ""


MESSAGES = st.lists(
    st.tuples(st.sampled_from([Kind.HELLO, Kind.BYE, Kind.PACKET]), st.binary(max_size=400))
    | st.tuples(st.sampled_from([Kind.PING, Kind.PONG]), st.binary(max_size=64)),
    max_size=8,
)


@given(messages=MESSAGES, size=st.integers(1, 700))
def test_messages_come_out_as_they_went_in(messages: list[tuple[Kind, bytes]], size: int) -> None:
    stream = b"".join(message(kind, body) for kind, body in messages)
    assert cut([stream]) == messages
    assert cut([stream[at : at + size] for at in range(0, len(stream), size)]) == messages


@given(data=st.binary(max_size=600))
def test_any_bytes_give_the_same_whole_and_one_by_one(data: bytes) -> None:
    assert outcome([data]) == outcome([bytes([byte]) for byte in data])


def test_an_offloaded_packet_has_its_virtio_header_beside_its_length() -> None:
    stream = bytes((Kind.OFFLOADED, 0, 4)) + bytes(range(10)) + b"abcd"
    assert cut([stream]) == [(Kind.OFFLOADED, bytes(range(10)) + b"abcd")]


def test_the_longest_packet_is_whole() -> None:
    body = bytes(65535)
    assert cut([message(Kind.PACKET, body)]) == [(Kind.PACKET, body)]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x00\x00\x00", "unknown kind 0"),
        (b"\x63\x00\x00", "unknown kind 99"),
        (b"\x01\xff\xff", "HELLO of 65535 bytes"),
        (b"\x02\x00\x41", "PING of 65 bytes"),
    ],
)
def test_what_is_no_message_is_refused_before_it_is_there(stream: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        cut([stream])


def test_many_small_messages_cost_no_more_than_one_by_one() -> None:
    stream = message(Kind.PING, b"") * 350_000
    before = time.process_time()
    assert len(cut([stream])) == 350_000
    assert time.process_time() - before < 4  # half a second; a copy of the rest for each took a minute


def test_what_is_said_in_answer_may_overwrite_what_is_behind_a_message() -> None:
    stream = bytearray(
        message(Kind.PING, b"one") + message(Kind.PONG, b"two") + message(Kind.PACKET, b"E123")
    )
    found = []
    for kind, body in Cutter().feed(memoryview(stream)):
        found.append((kind, bytes(body)))
        stream[:] = bytes(len(stream))
    assert found == [(Kind.PING, b"one"), (Kind.PONG, b"two"), (Kind.PACKET, b"E123")]


def test_what_is_too_long_is_not_made() -> None:
    with pytest.raises(ValueError, match="64 at most"):
        message(Kind.PING, bytes(65))


def test_what_is_done_about_a_message_may_overwrite_the_buffer() -> None:
    buffer = bytearray(message(Kind.PING, b"one") + message(Kind.PACKET, b"two"))
    messages = Cutter().feed(memoryview(buffer))
    kind, body = next(messages)
    buffer[:] = bytes(len(buffer))
    assert (kind, bytes(body)) == (Kind.PING, b"one")
    assert [(kind, bytes(body)) for kind, body in messages] == [(Kind.PACKET, b"two")]
