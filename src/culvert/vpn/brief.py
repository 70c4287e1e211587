"""Small packets without the IP header that they have in common with one before them.

A ping through a tunnel over TLS is 84 bytes with as many of overhead, and its IP header is the same in each
packet, or follows from it. A stream is reliable and in order, so both ends can keep the headers that went
each way. A small packet that goes as it is leaves its header behind, in one of SLOTS places that its
addresses and its protocol say; one with the same header names the place, and is without it:

    +----------------------------+------------------------+----------------- - -
    | place (4 bits), length (12)| identification (IPv4)  | what is behind the header
    +----------------------------+------------------------+----------------- - -

The packet's length and the header's checksum follow from the rest. Nothing behind the IP header is compared:
how well it goes with what somebody else has sent would show in the length (the attacks on compression in
front of encryption). Large packets do not take part.
"""

from __future__ import annotations

import struct

from culvert.vpn.transport import FrameError

LIMIT = 512
"""Longest packet that takes part, in bytes: in a longer one the header is little."""

SLOTS = 16
"""Headers that are kept each way: with several flows at once, most of them find theirs."""

SAVED = {4: 18, 6: 40}
"""Bytes by which a packet is shorter."""

_PLAIN = 0x45
"""How an IPv4 packet without options begins."""

_HEADER4, _HEADER6 = struct.Struct("!HHHIHQ"), struct.Struct("!IHH4Q")

_Kept = tuple[int, ...]
"""Of a header, what is the same in all packets of a flow: all but length, identification and checksum."""


class Headers:
    """The last headers that went one way: one at each end, and they agree."""

    __slots__ = ("_four", "_six")

    def __init__(self) -> None:
        self._four: list[_Kept] = [()] * SLOTS
        self._six: list[_Kept] = [()] * SLOTS

    def place(self, packet: bytearray | memoryview, start: int, count: int) -> tuple[int, bool]:
        """Keep the header of the small packet of `count` bytes at `start`; its place, and whether it stood
        there already: the packet may then go without it. A place of -1 is no packet that takes part.

        To be called with the same packets, in the same order, at both ends.
        """
        if packet[start] == _PLAIN and count >= 20:
            first, length, ident, middle, checksum, addresses = _HEADER4.unpack_from(packet, start)
            if length != count or checksum != _checksum(first, length, ident, middle, addresses):
                return -1, False  # no kernel's, and would not come back as it was
            slots = self._four
            kept: _Kept = (first, middle, addresses)
            slot = (middle ^ addresses ^ addresses >> 32) & SLOTS - 1
        elif packet[start] >> 4 == 6 and count >= 40:
            first, length, middle, *ends = _HEADER6.unpack_from(packet, start)
            if length != count - 40:
                return -1, False
            slots = self._six
            kept = (first, middle, *ends)
            slot = (middle >> 8 ^ ends[1] ^ ends[3]) & SLOTS - 1
        else:
            return -1, False
        if slots[slot] == kept:
            return slot, True
        slots[slot] = kept
        return slot, False

    def restore(self, version: int, slot: int, body: memoryview) -> bytes:
        """The whole packet of which this came. Raises FrameError."""
        kept = (self._four if version == 4 else self._six)[slot]
        if not kept:
            raise FrameError("a brief packet with no packet before it")
        if version == 6:
            return _HEADER6.pack(kept[0], len(body), *kept[1:]) + body
        if len(body) < 2:
            raise FrameError("a brief packet without its identification")
        first, middle, addresses = kept
        length, ident = len(body) + SAVED[4], body[0] << 8 | body[1]
        checksum = _checksum(first, length, ident, middle, addresses)
        return _HEADER4.pack(first, length, ident, middle, checksum, addresses) + body[2:]


def _checksum(first: int, length: int, ident: int, middle: int, addresses: int) -> int:
    """An IPv4 header's: ones' complement (RFC 1071) is arithmetic modulo 0xFFFF, in words of any size."""
    return -(first + length + ident + middle + addresses) % 0xFFFF
