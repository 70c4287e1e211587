"""What becomes of a packet that is too long for the tunnel: fragments, or records with a part each."""

from __future__ import annotations

import struct

from culvert.vpn.datagram.cutting import finish_ip
from culvert.vpn.datagram.parts import Parts

_DONT_FRAGMENT = 0x40
_MORE = 0x2000


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
