"""What a record holds: its first byte says it.

    0x4., 0x6.   an IP packet as it is: its version stands where the kind would
    PARTIAL      an IP packet whose TCP or UDP checksum is still that of the pseudo header alone
    PING, PONG   messages that may get lost: the body
    PIECE        a part of a message that must not: number (32 bits), a byte that is 1 for the last, data
    ACK          the number of the piece that is missing next
    PART         a part of an IP packet that must get through where it has no room (`parts`)
    PROBE        8 bytes, and as many zeros as make the datagram as long as it is to be
    SEEN         the 8 bytes of a PROBE
    PARITY       what a lost record is restored from (`repair`)
    LOSS         the share of records that was lost, in 1/10000

A checksum need not be computed: what has come through DTLS has not been changed on its way. The kernel that
gets the packet is told, and completes it should the packet go out of the machine again.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple


class Sort(enum.IntEnum):
    """What a record is that holds no whole packet; the number goes over the wire."""

    PING = 0x02
    PONG = 0x03
    PARTIAL = 0x11
    PIECE = 0x20
    ACK = 0x21
    PART = 0x22
    PROBE = 0x30
    SEEN = 0x31
    PARITY = 0x32
    LOSS = 0x33


PACKETS = frozenset({*range(0x40, 0x50), *range(0x60, 0x70)})
"""First bytes of IP packets."""

TOKEN = 8
"""Bytes by which a PROBE is known: nobody can guess them who has not received it."""

ECHO_LIMIT = 64
"""Longest body of a PING."""

_PIECE = struct.Struct(">BIB")
_ACK = struct.Struct(">BI")

PIECE_HEADER = _PIECE.size


class RecordError(ValueError):
    """A record that is none of these: it is dropped."""


class Piece(NamedTuple):
    """A part of a message."""

    number: int
    last: bool
    data: bytes


def piece(found: Piece) -> bytes:
    return _PIECE.pack(Sort.PIECE, found.number, found.last) + found.data


def ack(number: int) -> bytes:
    return _ACK.pack(Sort.ACK, number)


def probe(token: bytes, length: int) -> bytes:
    """A PROBE of `length` bytes, or the shortest where that is less."""
    return bytes((Sort.PROBE,)) + token + bytes(max(length - 1 - TOKEN, 0))


def seen(token: bytes) -> bytes:
    return bytes((Sort.SEEN,)) + token


def read(record: bytes) -> tuple[Sort, Piece | int | bytes]:
    """What a record is that holds no packet: a Piece, the number in an ACK, or the bytes of the others.

    Raises RecordError.
    """
    try:
        sort = Sort(record[0])
        if sort is Sort.PIECE:
            _, number, last = _PIECE.unpack_from(record)
            return sort, Piece(number, last == 1, record[PIECE_HEADER:])
        if sort is Sort.ACK:
            return sort, int(_ACK.unpack(record)[1])
    except (IndexError, ValueError, struct.error):
        raise RecordError("a record that cannot be read") from None
    if sort in (Sort.PING, Sort.PONG):
        if len(record) > 1 + ECHO_LIMIT:
            raise RecordError(f"a {sort.name} of {len(record)} bytes")
        return sort, record[1:]
    if sort in (Sort.PARITY, Sort.LOSS, Sort.PART):
        return sort, record
    if sort is Sort.PARTIAL or len(record) < 1 + TOKEN:
        raise RecordError(f"a {sort.name} of {len(record)} bytes")
    return sort, record[1 : 1 + TOKEN]
