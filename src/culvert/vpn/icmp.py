"""What the sender of a packet is told that goes no further: that nobody has its destination, or how long it
may be.

A message comes from the packet's own destination, an address that is routed to the tunnel anyway.
"""

from __future__ import annotations

import struct

from culvert.vpn.datagram.cutting import ones_sum
from culvert.vpn.datagram.parts import LEAST_MTU

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

_DONT_FRAGMENT = 0x40
_GROUP_6 = 0xFF


def unreachable(packet: bytes) -> bytes | None:
    """The message to the sender of `packet`, or of its beginning, that nobody is there; None where none may
    be sent. Host unreachable (RFC 792), address unreachable (RFC 4443, 3.1).
    """
    if _is_answered_4(packet):
        return _message_4(packet, 1, 0)
    if _is_answered_6(packet) and packet[24] != _GROUP_6:
        return _message_6(packet, 1, 3, 0)
    return None


def too_long(packet: bytes, mtu: int) -> bytes | None:
    """The message that packets may have `mtu` bytes; None where none may be sent (RFC 1191, 4; RFC 4443,
    3.2), nor has to be, as the packet may be cut.

    Over IPv6 none says less than LEAST_MTU, which no host would take (RFC 8201, 4): so long a packet goes in
    parts.
    """
    if _is_answered_4(packet) and packet[6] & _DONT_FRAGMENT:
        return _message_4(packet, 4, mtu)
    if _is_answered_6(packet):
        return _message_6(packet, 2, 0, max(mtu, LEAST_MTU))
    return None


def _is_answered_4(packet: bytes) -> bool:
    """Not of a later fragment, of an error, or to a group (RFC 1122, 3.2.2)."""
    if len(packet) < 28 or packet[0] >> 4 != 4:
        return False
    length = (packet[0] & 15) * 4
    later = packet[6] & 0x1F or packet[7]
    error = packet[9] == _ICMP and (len(packet) <= length or packet[length] not in _QUERIES_4)
    return not (later or error or packet[16] >= 224)


def _is_answered_6(packet: bytes) -> bool:
    """Not of an error (RFC 4443, 2.4 (e))."""
    if len(packet) < 48 or packet[0] >> 4 != 6:
        return False
    return packet[6] != _ICMP_6 or packet[40] >= _FIRST_ERROR_FREE_6


def _message_4(packet: bytes, code: int, word: int) -> bytes:
    """Destination unreachable, for this reason (RFC 792)."""
    body = struct.pack(">BBHI", 3, code, 0, word) + packet[:_QUOTED_4]
    body = body[:2] + struct.pack(">H", ~ones_sum(body) & 0xFFFF) + body[4:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, _ICMP, 0)
    header += packet[16:20] + packet[12:16]
    return header[:10] + struct.pack(">H", ~ones_sum(header) & 0xFFFF) + header[12:] + body


def _message_6(packet: bytes, kind: int, code: int, word: int) -> bytes:
    """An error of this type (RFC 4443, 3)."""
    body = struct.pack(">BBHI", kind, code, 0, word) + packet[:_QUOTED_6]
    ends = packet[24:40] + packet[8:24]
    total = ones_sum(ends + struct.pack(">IHBB", len(body), 0, 0, _ICMP_6) + body)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), _ICMP_6, 64) + ends + body
