"""Cuts a packet of up to 64 kB into segments where it stands, each as a record that is ready to be sealed.

The header of each segment but the first is written over the end of the payload before it, which has been
sealed by then: so no payload is ever moved. The checksum over the payload is not computed either (see
`records`), but for packets whose kind does not let the other end know where it stands.

A segment of TCP is at most as long as the sender's, and shorter where the way carries less: a stream does
not care. One of UDP is a datagram of its own, and is left as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from culvert.vpn.datagram.records import Sort
from culvert.vpn.transport import VIRTIO

TCP, UDP = 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}
"""Where the checksum stands in a header of TCP or UDP, by the number of the protocol."""

_VIRTIO = struct.Struct("<BBHHHH")
_NEEDS_CHECKSUM = 1
_TCP4, _TCP6, _UDP = 1, 4, 5

UDP_SEGMENTS = _UDP
"""The kind, in a virtio header, of a packet that stands for several datagrams of UDP."""

_ECN = 0x80
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80
_DONT_FRAGMENT = 0x40
_LEAST_SEGMENT = 8
_SEQUENCES = 2**32

_PARTIAL = int(Sort.PARTIAL)  # once: a member costs a call in Python 3.11 wherever it is named
_u16 = struct.Struct(">H")
_u32 = struct.Struct(">I")


class TooLongError(ValueError):
    """A packet that no record has room for, and that cannot be cut."""


class CutError(ValueError):
    """A virtio header that does not fit its packet."""


def cut(buffer: bytearray, start: int, count: int, room: int) -> Iterable[tuple[int, int]]:
    """Where in `buffer` the records of the packet of `count` bytes at `start` stand, and how long each is.

    Its virtio header stands in front of it. Each record is good until the next step, and at most `room` bytes
    long; all but the last are of one length. Raises TooLongError and CutError, before the first.
    """
    flags, kind, _, segment, checksum, offset = _VIRTIO.unpack_from(buffer, start - VIRTIO)
    kind &= ~_ECN
    if kind == 0:
        return (_whole(buffer, start, count, room, (checksum, offset) if flags & _NEEDS_CHECKSUM else None),)
    header = _header(buffer, start, count)
    udp = kind == _UDP
    length = min(segment, room - 1 - header) if not udp else segment
    if length < _LEAST_SEGMENT or 1 + header + length > room:
        raise TooLongError
    one = _Cut(header, length, checksum, udp=udp)
    if _partial_protocol(buffer, start) != (checksum, UDP if udp else TCP):
        return _completed(buffer, start, start + count, one)
    # Without the flag that says that it is never fragmented, each needs a number of its own (RFC 6864).
    if udp or (buffer[start] >> 4 == 4 and not buffer[start + 6] & _DONT_FRAGMENT):
        return _partial(buffer, start, start + count, one)
    return _alike(buffer, start, start + count, one)


def packets(buffer: bytearray, start: int, count: int) -> list[bytes]:
    """What the packet of `count` bytes at `start` stands for, as it would go out of the machine: segments,
    or itself, with their checksums. Its virtio header stands in front of it. Raises CutError.
    """
    flags, kind, _, segment, checksum, offset = _VIRTIO.unpack_from(buffer, start - VIRTIO)
    kind &= ~_ECN
    if kind == 0:
        if flags & _NEEDS_CHECKSUM:
            complete(buffer, start, count, checksum, offset)
        return [bytes(buffer[start : start + count])]
    one = _Cut(_header(buffer, start, count), segment, checksum, udp=kind == _UDP)
    return [bytes(buffer[at : at + size]) for at, size in _completed(buffer, start, start + count, one)]


def complete(buffer: bytearray, at: int, size: int, checksum: int, offset: int) -> None:
    """Compute the checksum of the packet at `at`: over it from `checksum` on, and the sum in its field."""
    if checksum + offset + 2 > size:
        raise CutError(f"a checksum at {checksum}+{offset} of {size} bytes")
    covered = bytes(buffer[at + checksum : at + size])
    _u16.pack_into(buffer, at + checksum + offset, ~ones_sum(covered) & 0xFFFF or 0xFFFF)


def ones_sum(data: bytes | bytearray) -> int:
    """The sum in ones' complement of 16-bit words (RFC 1071): 2^16 is 1 for it, so the remainder says it."""
    number = int.from_bytes(data, "big") << (8 * (len(data) & 1))
    return number % 0xFFFF or (0xFFFF if number else 0)


def pseudo_sum(packet: bytes | bytearray, protocol: int, length: int) -> int:
    """The sum of the pseudo header of `length` bytes of TCP or UDP (RFC 9293, 3.1; RFC 8200, 8.1)."""
    ends = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return ones_sum(bytes(ends) + bytes((0, protocol)) + length.to_bytes(2, "big"))


def finish_ip(packet: bytearray, length: int) -> None:
    """Let the IP header say `length` bytes, in all."""
    if packet[0] >> 4 == 6:
        _u16.pack_into(packet, 4, length - 40)
        return
    _u16.pack_into(packet, 2, length)
    _u16.pack_into(packet, 10, 0)
    _u16.pack_into(packet, 10, ~ones_sum(packet[: (packet[0] & 15) * 4]) & 0xFFFF)


def _header(buffer: bytearray, start: int, count: int) -> int:
    """Bytes of the header that all segments of a packet have. Raises CutError."""
    _, kind, _, segment, checksum, _ = _VIRTIO.unpack_from(buffer, start - VIRTIO)
    kind &= ~_ECN
    if kind not in (_TCP4, _TCP6, _UDP) or checksum + 20 > count:
        raise CutError(f"segmentation of the kind {kind} of {count} bytes")
    header: int = checksum + (8 if kind == _UDP else (buffer[start + checksum + 12] >> 4) * 4)
    if header > count or segment < 1:
        raise CutError(f"a header of {header} bytes in {count}, in segments of {segment}")
    return header


def _whole(
    buffer: bytearray, start: int, count: int, room: int, checksum: tuple[int, int] | None
) -> tuple[int, int]:
    partial = False
    if checksum is not None:
        where, protocol = _partial_protocol(buffer, start)
        partial = checksum == (where, CHECKSUM_AT.get(protocol))
    if count > room:
        raise TooLongError
    if partial and count < room:
        buffer[start - 1] = _PARTIAL
        return start - 1, count + 1
    if checksum is not None:
        complete(buffer, start, count, *checksum)
    return start, count


def _partial_protocol(buffer: bytearray, start: int) -> tuple[int, int]:
    """Where the other end looks for the header behind that of IP, and for which protocol's."""
    if buffer[start] >> 4 == 4:
        return (buffer[start] & 15) * 4, buffer[start + 9]
    return 40, buffer[start + 6]


class _Cut:
    """What the segments of one packet have in common, and how their headers differ."""

    __slots__ = ("checksum", "header", "length", "udp")

    def __init__(self, header: int, length: int, checksum: int, *, udp: bool) -> None:
        self.header = header
        self.length = length
        self.checksum = checksum
        self.udp = udp

    def made(self, original: bytes, payload: int, clear: int) -> bytearray:
        """The header of a segment with so many bytes of payload, without some flags of TCP."""
        header = bytearray(original)
        finish_ip(header, self.header + payload)
        length = self.header - self.checksum + payload
        protocol = UDP if self.udp else TCP
        _u16.pack_into(header, self.checksum + CHECKSUM_AT[protocol], pseudo_sum(header, protocol, length))
        if self.udp:
            _u16.pack_into(header, self.checksum + 4, length)
        else:
            header[self.checksum + 13] &= ~clear
        return header


def _segments(buffer: bytearray, start: int, end: int, one: _Cut) -> Iterator[tuple[int, int]]:
    """The packets, in order; the byte in front of each is free."""
    header, length = one.header, one.length
    original = bytes(buffer[start : start + header])
    first = start + header
    last = first + max(end - first - 1, 0) // length * length
    sequence_at = one.checksum + 4
    sequence = _u32.unpack_from(original, sequence_at)[0]
    # Without the flag that says that it is never fragmented, each needs a number of its own (RFC 6864).
    numbered = original[0] >> 4 == 4 and not original[6] & _DONT_FRAGMENT
    if last > first:
        buffer[start:first] = one.made(original, length, _FIN | _PSH)
        yield start, header + length
        template = one.made(original, length, _FIN | _PSH | _CWR)
        for number, position in enumerate(range(first + length, last, length), 1):
            at = position - header
            buffer[at:position] = template
            if not one.udp:
                _u32.pack_into(buffer, at + sequence_at, (sequence + number * length) % _SEQUENCES)
            if numbered:
                _number(buffer, at, number)
            yield at, header + length
    at = last - header
    buffer[at:last] = one.made(original, end - last, _CWR if last > first else 0)
    if not one.udp:
        _u32.pack_into(buffer, at + sequence_at, (sequence + last - first) % _SEQUENCES)
    if numbered:
        _number(buffer, at, (last - first) // length)
    yield at, header + end - last


def _completed(buffer: bytearray, start: int, end: int, one: _Cut) -> Iterator[tuple[int, int]]:
    """With each checksum computed here."""
    for at, size in _segments(buffer, start, end, one):
        complete(buffer, at, size, one.checksum, CHECKSUM_AT[UDP if one.udp else TCP])
        yield at, size


def _partial(buffer: bytearray, start: int, end: int, one: _Cut) -> Iterator[tuple[int, int]]:
    """With the checksums left to the other end."""
    for at, size in _segments(buffer, start, end, one):
        buffer[at - 1] = _PARTIAL
        yield at - 1, size + 1


def _alike(buffer: bytearray, start: int, end: int, one: _Cut) -> Iterator[tuple[int, int]]:
    """As `_partial`, for what nearly all is: segments of TCP of which only the sequence number differs."""
    header, length = one.header, one.length
    buffer[start - 1] = _PARTIAL
    original = bytes(buffer[start : start + header])
    first = start + header
    last = first + max(end - first - 1, 0) // length * length
    sequence = _u32.unpack_from(original, one.checksum + 4)[0]
    if last > first:
        buffer[start:first] = one.made(original, length, _FIN | _PSH)
        yield start - 1, 1 + header + length
        template = bytes((_PARTIAL,)) + one.made(original, length, _FIN | _PSH | _CWR)
        ahead, behind, whole = 1 + header, header - one.checksum - 4, 1 + header + length
        pack, offset = _u32.pack_into, sequence - first
        for position in range(first + length, last, length):
            at = position - ahead
            buffer[at:position] = template
            pack(buffer, position - behind, (offset + position) & 0xFFFFFFFF)
            yield at, whole
    at = last - header
    buffer[at - 1 : last] = bytes((_PARTIAL,)) + one.made(original, end - last, _CWR if last > first else 0)
    _u32.pack_into(buffer, at + one.checksum + 4, (sequence + last - first) & 0xFFFFFFFF)
    yield at - 1, 1 + header + end - last


def _number(buffer: bytearray, at: int, number: int) -> None:
    """Count the identification of IPv4 up."""
    _u16.pack_into(buffer, at + 4, (_u16.unpack_from(buffer, at + 4)[0] + number) & 0xFFFF)
    _u16.pack_into(buffer, at + 10, 0)
    header = bytes(buffer[at : at + (buffer[at] & 15) * 4])
    _u16.pack_into(buffer, at + 10, ~ones_sum(header) & 0xFFFF)
