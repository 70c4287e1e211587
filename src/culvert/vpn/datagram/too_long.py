"""What becomes of a packet that is too long for the tunnel: fragments, or an ICMP message to its sender.

That comes from the packet's own destination: an address in the VPN that the receiver takes packets from.
"""

from __future__ import annotations

import struct

from culvert.vpn.datagram.cutting import finish_ip, ones_sum
from culvert.vpn.datagram.parts import LEAST_MTU, Parts

_DONT_FRAGMENT = 0x40
_MORE = 0x2000
_QUOTED_4 = 28 + 520
"""Bytes of the packet in a message of IPv4: no more than what every host takes (RFC 1812, 4.3.2.3)."""

_QUOTED_6 = 1280 - 48
"""And of IPv6 (RFC 4443, 2.4 (c))."""

_ICMP, _ICMP_6 = 1, 58


def answer(packet: bytes, mtu: int) -> bytes | None:
    """The message to the sender of `packet`, or of its beginning; None where none may be sent."""
    if len(packet) >= 28 and packet[0] >> 4 == 4:
        return _fragmentation_needed(packet, mtu)
    if len(packet) >= 48 and packet[0] >> 4 == 6:
        return _packet_too_big(packet, mtu)
    return None


def carry(packets: list[bytes], room: int, parts: Parts) -> tuple[list[bytes], list[bytes]]:
    """The records of at most `room` bytes that carry these packets all the same, and the packets for which
    there are none. The checksums are complete.
    """
    carried: list[bytes] = []
    refused: list[bytes] = []
    for packet in packets:
        records = fragments(packet, room) or parts.cut(packet, room)
        carried += records
        if not records:
            refused.append(packet)
    return carried, refused


def fragments(packet: bytes, room: int) -> list[bytes]:
    """The packet, its checksum complete, in pieces of at most `room` bytes (RFC 791, 3.2): none where it must
    not be cut.
    """
    if len(packet) <= room:
        return [packet]
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[6] & _DONT_FRAGMENT:
        return []
    length = (packet[0] & 15) * 4
    each = (room - length) // 8 * 8
    if each < 8 or length < 20:
        return []
    before = struct.unpack_from(">H", packet, 6)[0]
    payload = packet[length:]
    found = []
    for start in range(0, len(payload), each):
        piece = payload[start : start + each]
        header = bytearray(packet[:length])
        more = _MORE if start + each < len(payload) else before & _MORE
        struct.pack_into(">H", header, 6, (before & ~_MORE) + start // 8 | more)
        finish_ip(header, length + len(piece))
        found.append(bytes(header) + piece)
    return found


def _fragmentation_needed(packet: bytes, mtu: int) -> bytes | None:
    """RFC 1191, 4."""
    first = not (packet[6] & 0x1F or packet[7])
    if packet[9] == _ICMP or not first or not packet[6] & _DONT_FRAGMENT:
        return None  # never of an ICMP error, and of the first fragment alone (RFC 1122, 3.2.2)
    body = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + packet[: _QUOTED_4 - 28]
    body = body[:2] + struct.pack(">H", ~ones_sum(body) & 0xFFFF) + body[4:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, _ICMP, 0)
    header += packet[16:20] + packet[12:16]
    return header[:10] + struct.pack(">H", ~ones_sum(header) & 0xFFFF) + header[12:] + body


def _packet_too_big(packet: bytes, mtu: int) -> bytes | None:
    """RFC 4443, 3.2. What is no longer than LEAST_MTU is never refused: it goes in parts."""
    mtu = max(mtu, LEAST_MTU)
    if packet[6] == _ICMP_6 and packet[40] < 128:  # the errors
        return None
    body = struct.pack(">BBHI", 2, 0, 0, mtu) + packet[:_QUOTED_6]
    ends = packet[24:40] + packet[8:24]
    total = ones_sum(ends + struct.pack(">IHBB", len(body), 0, 0, _ICMP_6) + body)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    return struct.pack(">IHBB", 6 << 28, len(body), _ICMP_6, 64) + ends + body
