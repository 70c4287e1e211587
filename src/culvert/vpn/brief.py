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

# Of a header, what is the same in all packets of a flow: all but lengths, identification and checksum.
_KEPT4, _KEPT6 = struct.Struct("!H4xI2xQ"), struct.Struct("!I2xH4Q")
_HEADER4, _HEADER6 = struct.Struct("!HHHIHQ"), struct.Struct("!IHH4Q")

_Kept = tuple[int, ...]


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
            kept: _Kept = _KEPT4.unpack_from(packet, start)
            slots, addresses = self._four, kept[2]
            slot = (kept[1] ^ addresses ^ addresses >> 32) & SLOTS - 1
        elif packet[start] >> 4 == 6 and count >= 40:
            kept = _KEPT6.unpack_from(packet, start)
            slots = self._six
            slot = (kept[1] >> 8 ^ kept[3] ^ kept[5]) & SLOTS - 1
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
        # Ones' complement arithmetic (RFC 1071) is arithmetic modulo 0xFFFF, in words of any size.
        checksum = -(first + length + ident + middle + addresses) % 0xFFFF
        return _HEADER4.pack(first, length, ident, middle, checksum, addresses) + body[2:]
