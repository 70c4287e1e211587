"""IP packets with and without a virtio header, as an interface gives them."""

from __future__ import annotations

import ipaddress
import struct


def ipv4(
    payload: bytes = b"", *, protocol: int = 1, source: str = "10.9.0.2", to: str = "10.9.0.1", ident: int = 0
) -> bytes:
    """An IPv4 packet."""
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(to).packed
    fields = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(payload), ident, 0, 64, protocol)
    total = sum(struct.unpack(">10H", fields + bytes(2) + ends))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return fields + struct.pack(">H", 0xFFFF - total) + ends + payload


def ipv6(payload: bytes = b"", *, protocol: int = 58, source: str = "fd09::2", to: str = "fd09::1") -> bytes:
    """An IPv6 packet."""
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(to).packed
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload


def tcp(data: bytes) -> bytes:
    """A TCP segment."""
    return struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 1000, 0, 0) + data


def udp(data: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack(">HHHH", 1, 2, 8 + len(data), 0) + data


def virtio(
    *, flags: int = 1, kind: int = 0, header: int = 0, segment: int = 0, start: int = 0, offset: int = 0
) -> bytes:
    """A virtio header."""
    return struct.pack("<BBHHHH", flags, kind, header, segment, start, offset)
