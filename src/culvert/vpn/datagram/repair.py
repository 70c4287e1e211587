"""What a way loses is restored from a parity record, without asking for it again.

A TCP flow's rate goes by one over the root of what it sees lost, wherever it is carried: over 2 % of loss and
40 ms, datagrams alone carry no more than TLS does. So where the peer reports loss, each few records are
followed by one that is the exclusive or of them; of all these together, any single one may be missing.
Nothing is repeated, nothing waits, and where nothing is lost nothing of this is sent.

Times are the caller's business; a record's number is its epoch and sequence number (RFC 6347, 4.1).
"""

from __future__ import annotations

import struct
from collections import OrderedDict

from culvert.vpn.datagram.records import RecordError, Sort

SMALLEST = 200
"""Bytes of a record that is protected: what is shorter is nearly always an acknowledgement, and the next one
says as much.
"""

LEAST_LOSS = 0.003
"""Share of lost records from which on they are protected; below the half of it no more."""

FRESH = 0.2
"""How much a report counts beside those before it."""

KEPT = 128
"""Records that are kept for a parity to come."""

REPORT_AFTER = 50
"""Records that must have been sent for a report: fewer say little."""

_PARITY = struct.Struct(">BQIH")
_LOSS = struct.Struct(">BH")

PARITY_HEADER = _PARITY.size
"""Bytes by which a parity is longer than the longest record that it covers."""

_SPAN = 32
_SHARE = 10_000


class Protector:
    """The sender's side: hears of loss, and makes the parities."""

    __slots__ = ("_first", "_lengths", "_lost", "_mask", "_size", "_sum", "group", "longest", "wanted")

    def __init__(self) -> None:
        self.group = 0
        """Records for each parity; 0 where none is sent."""
        self.wanted = True
        """Whether parities are to be sent at all."""
        self._lost = 0.0
        self._first = self._mask = self._size = self._sum = self._lengths = self.longest = 0

    @property
    def pending(self) -> bool:
        """Whether `parity` has something to cover."""
        return self._mask != 0

    def hear(self, lost: float) -> None:
        """The peer has lost this share of the records."""
        if not self.wanted:
            return
        self._lost += (lost - self._lost) * (FRESH if self.group else 1)
        if self._lost >= (LEAST_LOSS / 2 if self.group else LEAST_LOSS):
            self.group = max(3, min(10, int(0.16 / self._lost)))
        else:
            self.group = 0
            self._reset()

    def add(self, number: int, plaintext: bytes) -> bytes | None:
        """A record has been sealed under this number; the parity record to seal behind it, if it is time."""
        before = None
        if self._mask and not 0 < number - self._first < _SPAN:
            before = self.parity()
        if not self._mask:
            self._first = number
        self._mask |= 1 << (number - self._first)
        self._size += 1
        self._sum ^= int.from_bytes(plaintext, "little")
        self._lengths ^= len(plaintext)
        self.longest = max(self.longest, len(plaintext))
        return self.parity() if before is None and self._size >= self.group else before

    def parity(self) -> bytes | None:
        """The parity of what was added since the last one; None for nothing."""
        if not self._mask:
            return None
        record = _PARITY.pack(Sort.PARITY, self._first, self._mask, self._lengths)
        record += self._sum.to_bytes(self.longest, "little")
        self._reset()
        return record

    def _reset(self) -> None:
        self._first = self._mask = self._size = self._sum = self._lengths = self.longest = 0


class Restorer:
    """The receiver's side: counts what is lost, keeps what came, and makes up for one that did not."""

    __slots__ = ("_counted_from", "_kept", "_newest", "_seen", "_told", "active", "restored")

    def __init__(self) -> None:
        self.active = False
        """Whether parities come, so that records are to be kept."""
        self.restored = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._newest = self._counted_from = self._seen = 0
        self._told = 0.0

    def count(self, number: int, records: int) -> None:
        """So many records have come, the last of them of this number."""
        self._seen += records
        if number > self._newest:
            if not self._newest:
                self._counted_from = number - records
            self._newest = number

    def report(self) -> float | None:
        """The share that was lost since the last report; None where there is nothing to tell."""
        sent = self._newest - self._counted_from
        if sent < REPORT_AFTER:
            return None
        lost = max(sent - self._seen, 0) / sent
        self._counted_from, self._seen = self._newest, 0
        before, self._told = self._told, lost
        if not lost and not before:
            self.active = False
            self._kept.clear()
            return None
        return lost

    def keep(self, number: int, plaintext: bytes) -> None:
        """A record has come under this number."""
        self._kept[number] = plaintext
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def take(self, record: bytes) -> bytes | None:
        """What a parity restores: the one record that is missing; else None. Raises RecordError."""
        self.active = True
        if len(record) < PARITY_HEADER:
            raise RecordError(f"a PARITY of {len(record)} bytes")
        _, first, mask, length = _PARITY.unpack_from(record)
        total, missing = int.from_bytes(record[PARITY_HEADER:], "little"), -1
        for offset in range(_SPAN):
            if mask >> offset & 1:
                found = self._kept.get(first + offset)
                if found is not None:
                    total ^= int.from_bytes(found, "little")
                    length ^= len(found)
                elif missing >= 0:
                    return None
                else:
                    missing = first + offset
        if missing < 0:
            return None
        if not 0 < length <= len(record) - PARITY_HEADER or total.bit_length() > 8 * length:
            raise RecordError("a PARITY that does not go with its records")
        plaintext = total.to_bytes(length, "little")
        self.keep(missing, plaintext)
        self.restored += 1
        return plaintext


def loss(share: float) -> bytes:
    """The record that reports a loss."""
    return _LOSS.pack(Sort.LOSS, min(int(share * _SHARE), _SHARE))


def read_loss(record: bytes) -> float:
    """What such a record says. Raises RecordError."""
    if len(record) != _LOSS.size:
        raise RecordError(f"a LOSS of {len(record)} bytes")
    return float(min(_LOSS.unpack(record)[1], _SHARE)) / _SHARE
