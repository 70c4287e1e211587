"""What the sender of a packet is told whose destination nobody has.

The message comes from the packet's own destination, an address that is routed to the tunnel anyway.
"""

from __future__ import annotations

import struct

from culvert.vpn.datagram.cutting import ones_sum

_ICMP, _ICMP_6 = 1, 58
_QUOTED_4 = 548 - 28
"""Bytes of the packet in a message of IPv4: no more than what every host takes (RFC 1812, 4.3.2.3)."""

_QUOTED_6 = 1280 - 48
"""And of IPv6 (RFC 4443, 2.4 (c))."""

QUOTED = _QUOTED_6
"""As much of a packet as a message can need."""

_FIRST_ERROR_FREE_6 = 128
"""ICMPv6 types below are errors (RFC 4443, 2.1)."""

_QUERIES_4 = frozenset({0, 8, 13, 14})
"""ICMP types that are no errors: echo and timestamp, asked and answered (RFC 792)."""


def unreachable(packet: bytes) -> bytes | None:
    """The message to the sender of `packet`, or of its beginning; None where none may be sent."""
    if len(packet) >= 28 and packet[0] >> 4 == 4:
        return _of_ipv4(packet)
    if len(packet) >= 48 and packet[0] >> 4 == 6:
        return _of_ipv6(packet)
    return None


def _of_ipv4(packet: bytes) -> bytes | None:
    """Host unreachable (RFC 792)."""
    length = (packet[0] & 15) * 4
    later = packet[6] & 0x1F or packet[7]
    error = packet[9] == _ICMP and (len(packet) <= length or packet[length] not in _QUERIES_4)
    if later or error or packet[16] >= 224:
        return None  # of a later fragment, an error, or to a group (RFC 1122, 3.2.2)
    body = struct.pack(">BBHI", 3, 1, 0, 0) + packet[:_QUOTED_4]
    body = body[:2] + struct.pack(">H", ~ones_sum(body) & 0xFFFF) + body[4:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, _ICMP, 0)
    header += packet[16:20] + packet[12:16]
    return header[:10] + struct.pack(">H", ~ones_sum(header) & 0xFFFF) + header[12:] + body


def _of_ipv6(packet: bytes) -> bytes | None:
    """Address unreachable (RFC 4443, 3.1)."""
    if (packet[6] == _ICMP_6 and packet[40] < _FIRST_ERROR_FREE_6) or packet[24] == 0xFF:
        return None
    body = struct.pack(">BBHI", 1, 3, 0, 0) + packet[:_QUOTED_6]
    ends = packet[24:40] + packet[8:24]
    total = ones_sum(ends + struct.pack(">IHBB", len(body), 0, 0, _ICMP_6) + body)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), _ICMP_6, 64) + ends + body
