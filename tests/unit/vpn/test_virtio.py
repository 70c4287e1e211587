"""What of a peer's packets may reach the kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.vpn.virtio import NO_HEADER, PacketError, inspect, is_whole

from .packets import ipv4, ipv6, tcp, udp, virtio

TCP4, TCP6, UDP = 1, 4, 5
ECN = 0x80

LONG4 = ipv4(tcp(bytes(5000)), protocol=6)
LONG6 = ipv6(tcp(bytes(5000)), protocol=6)
UDP4 = ipv4(udp(bytes(5000)), protocol=17)

GOOD = {
    "plain TCP": virtio(start=20, offset=16) + ipv4(tcp(b"x"), protocol=6),
    "TSO IPv4": virtio(kind=TCP4, header=40, segment=1460, start=20, offset=16) + LONG4,
    "TSO IPv4 with ECN": virtio(kind=TCP4 | ECN, header=40, segment=1460, start=20, offset=16) + LONG4,
    "TSO IPv6": virtio(kind=TCP6, header=60, segment=1440, start=40, offset=16) + LONG6,
    "USO": virtio(kind=UDP, header=28, segment=1400, start=20, offset=6) + UDP4,
    "verified": virtio(flags=2) + LONG4,
}

BAD = {
    "nothing": b"",
    "a header alone": NO_HEADER,
    "other flags": virtio(flags=4) + LONG4,
    "a header past the packet": virtio(header=6000, start=20, offset=16) + LONG4,
    "a checksum in the IP header": virtio(start=2, offset=2) + LONG4,
    "a checksum past the packet": virtio(start=5039, offset=16) + LONG4,
    "an unknown kind": virtio(kind=3, segment=1460, start=20, offset=16) + LONG4,
    "no checksum to complete": virtio(flags=0, kind=TCP4, segment=1460) + LONG4,
    "IPv6 for IPv4": virtio(kind=TCP6, segment=1460, start=40, offset=16) + LONG4,
    "IPv4 for IPv6": virtio(kind=TCP4, segment=1460, start=40, offset=16) + LONG6,
    "TCP for UDP": virtio(kind=TCP4, segment=1460, start=20, offset=16) + UDP4,
    "segments of nothing": virtio(kind=TCP4, segment=0, start=20, offset=16) + LONG4,
    "segments of one byte": virtio(kind=TCP4, segment=1, start=20, offset=16) + LONG4,
    "datagrams of one byte": virtio(kind=UDP, segment=1, start=20, offset=6) + UDP4,
    "another place for the checksum": virtio(kind=TCP4, segment=1460, start=28, offset=16) + LONG4,
    "another checksum": virtio(kind=TCP4, segment=1460, start=20, offset=6) + LONG4,
}

for flag, named in ((0x02, "SYN"), (0x04, "RST")):
    packet = bytearray(LONG4)
    packet[20 + 13] |= flag
    BAD[f"segments with {named}"] = virtio(kind=TCP4, segment=1460, start=20, offset=16) + packet
for at, byte, named in ((6, 0x20, "first"), (7, 0x10, "later")):
    packet = bytearray(LONG4)
    packet[at] |= byte
    BAD[f"segments of a {named} fragment"] = virtio(kind=TCP4, segment=1460, start=20, offset=16) + packet
BAD["segments of a fragment of IPv6"] = virtio(kind=TCP6, segment=1440, start=48, offset=16) + ipv6(
    bytes((6, *bytes(7))) + tcp(bytes(5000)), protocol=44
)

BAD_PACKETS = {
    "IPv4 cut": LONG4[:-1],
    "IPv4 with more behind it": LONG4 + b"x",
    "IPv6 cut": LONG6[:-1],
    "IPv6 header cut": LONG6[:39],
    "a header of 16 bytes": b"\x44" + LONG4[1:],
    "a header longer than the packet": b"\x4f" + ipv4()[1:],
    "version 5": b"\x55" + LONG4[1:],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_an_interface_gives_passes(name: str) -> None:
    ends = inspect(memoryview(GOOD[name]), True)
    assert (ends[len(ends) // 2 - 1], ends[-1]) == (2, 1)


@pytest.mark.parametrize("name", BAD)
def test_a_header_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(PacketError):
        inspect(memoryview(BAD[name]), True)


@pytest.mark.parametrize("name", BAD_PACKETS)
def test_what_is_no_whole_packet_is_refused(name: str) -> None:
    with pytest.raises(PacketError):
        inspect(memoryview(BAD_PACKETS[name]), False)


def test_the_ends_of_a_packet() -> None:
    assert inspect(memoryview(ipv4(b"abc")), False) == b"\n\t\0\2" + b"\n\t\0\1"
    ends = inspect(memoryview(ipv6(b"abc")), False)
    assert ends.hex() == "fd09" + "0" * 27 + "2" + "fd09" + "0" * 27 + "1"


def test_a_packet_that_is_complete_needs_no_header() -> None:
    assert is_whole(NO_HEADER)
    assert is_whole(virtio(flags=2))
    assert not is_whole(virtio(flags=1))
    assert not is_whole(virtio(flags=0, kind=1))


@given(header=st.binary(min_size=0, max_size=60), body=st.sampled_from([b"", LONG4, LONG6, UDP4]))
def test_any_bytes_end_in_ends_or_in_the_error(header: bytes, body: bytes) -> None:
    for offloaded in (False, True):
        try:
            ends = inspect(memoryview(header + body), offloaded)
        except PacketError:
            continue
        assert len(ends) in (8, 32)


@given(header=st.binary(min_size=10, max_size=10))
def test_any_virtio_header_ends_in_ends_or_in_the_error(header: bytes) -> None:
    for packet in (LONG4, LONG6, UDP4):
        try:
            inspect(memoryview(header + packet), True)
        except PacketError:
            continue
        kind = header[1] & 0x7F
        segment = int.from_bytes(header[4:6], "little")
        assert kind == 0 or 5000 / segment < 130
