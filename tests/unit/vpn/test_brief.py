"""Small packets without what their headers have in common."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.vpn.brief import SPANS, Headers
from culvert.vpn.frames import BRIEF, Cutter
from culvert.vpn.transport import FrameError, Kind

from .packets import ipv4


def echo(number: int) -> bytes:
    """An echo request, as ping sends it."""
    return ipv4(struct.pack(">BBHHH", 8, 0, 0x1234 - number, 77, number) + bytes(56))


def shortened(near: Headers, packet: bytes) -> bytes:
    """A packet as it goes over the wire."""
    version = packet[0] >> 4
    head = near.shorten(version, packet[: SPANS[version]])
    assert head is not None
    return head + packet[SPANS[version] :]


def test_a_ping_comes_back_and_is_a_fourth_shorter() -> None:
    near, far = Headers(), Headers()
    sizes = []
    for number in range(3):
        body = shortened(near, echo(number))
        sizes.append(len(body))
        assert far.restore(4, body) == echo(number)
    assert sizes[1:] == [62, 62]
    assert len(echo(0)) == 84


def test_a_header_that_has_nothing_in_common_goes_as_it_is() -> None:
    near = Headers()
    other = bytes(255 for _ in range(28))
    assert near.shorten(4, other) is None
    assert near.shorten(4, bytes(28)) == bytes(4)  # the last one is still that of before


PACKETS = st.lists(
    st.builds(
        lambda version, header, rest: (
            bytes([version << 4 | header[0] & 15]) + header[1 : SPANS[version]] + rest
        ),
        st.sampled_from([4, 6]),
        st.binary(min_size=48, max_size=48) | st.just(bytes(48)),
        st.binary(max_size=40),
    ),
    max_size=8,
)


@given(PACKETS)
def test_every_packet_comes_back_as_it_was(packets: list[bytes]) -> None:
    near, cutter = Headers(), Cutter()
    for packet in packets:
        version = packet[0] >> 4
        head = near.shorten(version, packet[: SPANS[version]])
        if head is None:
            continue
        body = head + packet[SPANS[version] :]
        stream = struct.pack(">BH", BRIEF[version], len(body)) + body
        assert [(kind, bytes(one)) for kind, one in cutter.feed(memoryview(stream))] == [
            (Kind.PACKET, packet)
        ]


@given(version=st.sampled_from([4, 6]), bodies=st.lists(st.binary(max_size=70), max_size=4))
def test_any_bytes_end_in_a_packet_or_in_the_error(version: int, bodies: list[bytes]) -> None:
    far = Headers()
    for body in bodies:
        try:
            assert len(far.restore(version, body)) >= SPANS[version]
        except FrameError:
            return


def test_a_mask_that_is_longer_than_the_header_is_refused() -> None:
    with pytest.raises(FrameError, match="mask 0x10000000"):
        Headers().restore(4, b"\x10\0\0\0" + bytes(40))
