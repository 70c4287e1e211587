"""A packet that must get through in one piece, on a way that has no room for it: in parts, a record each.

IPv6 holds that every link carries 1280 bytes (RFC 8200, 5): one with less room has to see to it by itself,
and a host that is told of less passes it over (RFC 8201, 4). A part that is lost takes its packet with it.

A part is its packet's number (16 bits), which one it is, how many there are (a byte each), and its data.
"""

from __future__ import annotations

import struct

from culvert.vpn.datagram.records import RecordError, Sort

LEAST_MTU = 1280
"""Bytes that every link of IPv6 carries: what is longer is for its sender to cut."""

PARTS_MOST = 8
"""Parts of one packet: 3 are enough for the shortest way that is tried."""

UNDER_WAY = 16
"""Packets of which parts are kept: those that are still missing must follow soon."""

_PART = struct.Struct(">BHBB")


class Parts:
    """Cuts packets to one peer into parts, and makes packets of the parts that it sends."""

    def __init__(self) -> None:
        self._number = 0
        self._under_way: dict[int, list[bytes | None]] = {}

    def cut(self, packet: bytes, room: int) -> list[bytes]:
        """The records that make this packet, of at most `room` bytes; none where it need not get through."""
        if packet[0] >> 4 != 6 or len(packet) > LEAST_MTU:
            return []
        each = room - _PART.size
        if each * PARTS_MOST < len(packet):
            return []
        pieces = [packet[start : start + each] for start in range(0, len(packet), each)]
        self._number = (self._number + 1) & 0xFFFF
        return [
            _PART.pack(Sort.PART, self._number, which, len(pieces)) + piece
            for which, piece in enumerate(pieces)
        ]

    def take(self, record: bytes) -> bytes | None:
        """The packet that is complete with this part. Raises RecordError."""
        if not _PART.size < len(record) <= _PART.size + LEAST_MTU:
            raise RecordError(f"a PART of {len(record)} bytes")
        _, number, which, many = _PART.unpack_from(record)
        if not which < many <= PARTS_MOST:
            raise RecordError(f"the PART {which} of {many}")
        kept = self._under_way.get(number)
        if kept is None or len(kept) != many:
            self._under_way.pop(number, None)
            kept = self._under_way[number] = [None] * many
            if len(self._under_way) > UNDER_WAY:
                del self._under_way[next(iter(self._under_way))]
        kept[which] = record[_PART.size :]
        found = [one for one in kept if one is not None]
        if len(found) < many:
            return None
        del self._under_way[number]
        if sum(map(len, found)) > LEAST_MTU:
            raise RecordError("a packet in parts that is longer than one may be")
        return b"".join(found)
