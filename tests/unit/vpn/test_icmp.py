"""What the sender of a packet to nobody is told."""

from __future__ import annotations

import ipaddress
import struct

from culvert.vpn.datagram.cutting import ones_sum
from culvert.vpn.icmp import too_long, unreachable

from .packets import ipv4, tcp

HERE, THERE = "10.9.0.1", "10.9.0.77"


def packet(first: int = 8, protocol: int = 1, to: str = THERE) -> bytes:
    """One of IPv4 whose payload begins with this byte."""
    return ipv4(bytes([first]) + bytes(30), protocol=protocol, source=HERE, to=to)


def packet6(first: int, protocol: int = 58) -> bytes:
    """One of IPv6."""
    ends = ipaddress.ip_address("fd09::1").packed + ipaddress.ip_address("fd09::77").packed
    return struct.pack(">IHBB", 6 << 28, 16, protocol, 64) + ends + bytes([first]) + bytes(15)


def test_it_comes_from_the_destination_and_quotes_the_packet() -> None:
    lost = ipv4(tcp(b"x"), protocol=6, source=HERE, to=THERE)
    message = unreachable(lost)
    assert message is not None
    assert message[12:20] == lost[16:20] + lost[12:16]
    assert (message[9], message[20:22], message[28:]) == (1, b"\x03\x01", lost)
    assert ones_sum(message[:20]) == ones_sum(message[20:]) == 0xFFFF


def test_it_does_so_over_ipv6() -> None:
    lost = packet6(128)
    message = unreachable(lost)
    assert message is not None
    assert (message[6], message[8:40], message[40:42]) == (58, lost[24:40] + lost[8:24], b"\x01\x03")
    pseudo = message[8:40] + struct.pack(">IHBB", len(message) - 40, 0, 0, 58)
    assert ones_sum(pseudo + message[40:]) == 0xFFFF


def test_of_an_error_a_group_or_half_a_packet_nothing_is_said() -> None:
    later = bytearray(packet(protocol=17))
    later[7] = 5
    assert unreachable(packet(3)) is None
    assert unreachable(packet(to="224.0.0.1")) is None
    assert unreachable(bytes(later)) is None
    assert unreachable(packet6(1)) is None
    assert unreachable(packet()[:20]) is None
    assert unreachable(b"") is None


def test_a_long_ping_that_must_not_be_cut_is_told_of_too() -> None:
    ping = bytearray(packet(8))
    assert too_long(bytes(ping), 1300) is None
    ping[6] = 0x40
    message = too_long(bytes(ping), 1300)
    assert message is not None
    assert message[20:28] == b"\x03\x04" + message[22:24] + struct.pack(">HH", 0, 1300)
