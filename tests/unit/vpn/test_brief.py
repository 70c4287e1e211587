"""Small packets without the IP header of one before them."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from culvert.vpn.brief import LIMIT, SAVED, SLOTS, Headers
from culvert.vpn.frames import BRIEF, BRIEF_PLACE, Cutter, message
from culvert.vpn.transport import FrameError, Kind

from .packets import ipv4, ipv6


def echo(number: int) -> bytes:
    """An echo request, as ping sends it."""
    return ipv4(struct.pack(">BBHHH", 8, 0, 0x1234 - number, 77, number) + bytes(56), ident=number)


def sent(near: Headers, packet: bytes) -> bytes:
    """A packet as it goes over the wire: a message."""
    buffer = bytearray(packet)
    place, known = near.place(buffer, 0, len(packet))
    if not known:
        return message(Kind.PACKET, packet)
    version = packet[0] >> 4
    body = packet[4:6] + packet[20:] if version == 4 else packet[40:]
    assert len(body) == len(packet) - SAVED[version]
    return struct.pack(">BH", BRIEF[version], place << BRIEF_PLACE | len(body)) + body


def received(cutter: Cutter, stream: bytes) -> list[tuple[Kind, bytes]]:
    return [(kind, bytes(one)) for kind, one in cutter.feed(memoryview(stream))]


def test_a_ping_comes_back_and_is_without_its_header_from_the_second_on() -> None:
    near, far = Headers(), Cutter()
    sizes = []
    for number in range(3):
        stream = sent(near, echo(number))
        sizes.append(len(stream))
        assert received(far, stream) == [(Kind.PACKET, echo(number))]
    assert sizes == [87, 69, 69]


def test_flows_that_take_turns_find_their_headers() -> None:
    near, far = Headers(), Cutter()
    flows = [ipv4(bytes(20), source=f"10.9.0.{host}") for host in range(1, 9)]
    flows += [ipv6(bytes(20), source=f"fd09::{host}") for host in range(1, 9)]
    for _ in range(2):
        sizes = []
        for packet in flows:
            stream = sent(near, packet)
            sizes.append(len(stream))
            assert received(far, stream) == [(Kind.PACKET, packet)]
    assert sizes == [3 + 2 + 20] * 8 + [3 + 20] * 8


PACKETS = st.lists(
    st.builds(
        lambda make, host, last, payload: make(payload, host, last),
        st.sampled_from(
            [
                lambda payload, host, last: ipv4(payload, source=f"10.9.0.{host}", ident=last),
                lambda payload, host, last: ipv6(payload, source=f"fd09::{host}"),
                lambda payload, host, last: bytes([host]) + payload,
            ]
        ),
        st.integers(1, 255),
        st.integers(0, 65535),
        st.binary(max_size=60),
    ),
    max_size=12,
)


@example([b"E" + bytes(19)])
@given(PACKETS)
def test_every_packet_comes_back_as_it_was(packets: list[bytes]) -> None:
    near, far = Headers(), Cutter()
    for packet in [*packets, *packets]:
        assert received(far, sent(near, packet)) == [(Kind.PACKET, packet)]


@given(PACKETS)
def test_a_message_alone_is_the_same_by_the_shorter_way(packets: list[bytes]) -> None:
    near, far, shorter = Headers(), Cutter(), Cutter()
    for packet in [*packets, *packets]:
        stream = sent(near, packet)
        alone = shorter.alone(memoryview(stream))
        found = received(shorter, stream) if alone is None else [(Kind.PACKET, bytes(alone))]
        assert found == received(far, stream)
        assert (alone is None) == (stream[0] == Kind.PACKET)


@given(
    data=st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: bytes([20, 0, len(rest)]) + rest)
)
def test_any_bytes_alone_are_a_packet_or_the_error_or_for_the_longer_way(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert Cutter().alone(memoryview(data)) is None


@given(
    version=st.sampled_from([4, 6]),
    before=st.binary(max_size=60),
    bodies=st.lists(st.tuples(st.integers(0, SLOTS - 1), st.binary(max_size=70)), max_size=4),
)
def test_any_bytes_end_in_a_packet_or_in_the_error(
    version: int, before: bytes, bodies: list[tuple[int, bytes]]
) -> None:
    far = Headers()
    if before:
        far.place(memoryview(before), 0, len(before))
    for place, body in bodies:
        try:
            assert len(far.restore(version, place, memoryview(body))) == len(body) + SAVED[version]
        except FrameError:
            return


def test_a_header_that_never_came_is_refused() -> None:
    with pytest.raises(FrameError, match="no packet before it"):
        received(Cutter(), struct.pack(">BH", BRIEF[4], 3 << BRIEF_PLACE | 22) + bytes(22))


def test_a_brief_packet_that_is_not_small_is_refused() -> None:
    with pytest.raises(FrameError, match=f"PACKET of {LIMIT + 1} bytes"):
        received(Cutter(), struct.pack(">BH", BRIEF[6], LIMIT + 1))
