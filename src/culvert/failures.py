"""The last failures of connections, each with its reason, in memory that the processes of a daemon share.

There is room for `KEPT` of them. One that is as another before, of the same client's address, takes that
one's place and counts on. Where all places are taken, the oldest goes of the service and kind of failure that
has the most: so what fails all the time does not drive out what failed once.

A peer may have a word in a reason: whoever shows it makes it safe to be shown.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import time
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass

KEPT = 64
"""Failures that are kept."""

_HEAD = struct.Struct("=dQ4H")
_LIMITS = (96, 96, 48, 240)
"""Bytes of the service's name, the peer, the kind and the reason."""

_ENTRY = 512
_DIGEST = 8
_NUMBER = 8
_READINGS = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed: `time` (Unix time) is of the last one, `count` how many there were like it since the
    first that is still known. `kind` is how the connection ended.
    """

    time: float
    count: int
    service: str
    peer: str
    kind: str
    reason: str


class Failures:
    """The last failures. `lock` is held by who writes; whoever reads waits for nobody."""

    def __init__(self, lock: AbstractContextManager[None]) -> None:
        self._lock = lock
        self._keys = mmap.mmap(-1, KEPT * _DIGEST)
        """What makes each the same as another."""
        self._groups = memoryview(mmap.mmap(-1, KEPT * _NUMBER)).cast("Q")
        """What makes each of a kind with another."""
        self._orders = memoryview(mmap.mmap(-1, KEPT * _NUMBER)).cast("Q")
        """A number that grows with each failure; 0 for a place that is free."""
        self._version = memoryview(mmap.mmap(-1, _NUMBER)).cast("Q")
        """Odd while somebody writes."""
        self._entries = mmap.mmap(-1, KEPT * _ENTRY)

    def record(self, service: str, peer: str, kind: str, reason: str) -> None:
        """Keep a failure. `peer` is an address with its port, or what else a client is called."""
        fields = [
            text.encode("utf-8", "backslashreplace")[:limit]
            for text, limit in zip((service, peer, kind, reason), _LIMITS, strict=True)
        ]
        client = fields[1].rpartition(b":")[0] or fields[1]
        key = _digest(fields[0], client, fields[2], fields[3])
        group = int.from_bytes(_digest(fields[0], fields[2]), "little")
        now = time.time()
        with self._lock:
            self._version[0] |= 1
            place = self._known(key)
            count = 1
            if place is None:
                place = self._free()
                self._keys[place * _DIGEST : (place + 1) * _DIGEST] = key
                self._groups[place] = group
            else:
                count += _HEAD.unpack_from(self._entries, place * _ENTRY)[1]
            data = _HEAD.pack(now, count, *map(len, fields)) + b"".join(fields)
            self._entries[place * _ENTRY : place * _ENTRY + len(data)] = data
            self._orders[place] = max(self._orders) + 1
            self._version[0] += 1

    def read(self) -> list[Failure]:
        """All that are kept, the last one first."""
        for _ in range(_READINGS):
            before = self._version[0]
            orders, data = self._orders.tolist(), self._entries[:]
            if before % 2 == 0 and before == self._version[0]:
                break
        places = sorted((place for place in range(KEPT) if orders[place]), key=lambda place: -orders[place])
        return [_entry(data, place * _ENTRY) for place in places]

    def _known(self, key: bytes) -> int | None:
        at = self._keys.find(key)
        while at >= 0 and at % _DIGEST:  # across two of them there may be the same bytes
            at = self._keys.find(key, at + 1)
        return at // _DIGEST if at >= 0 else None

    def _free(self) -> int:
        orders = self._orders.tolist()
        if 0 in orders:
            return orders.index(0)
        groups = self._groups.tolist()
        fullest = Counter(groups).most_common(1)[0][0]
        return min((place for place in range(KEPT) if groups[place] == fullest), key=orders.__getitem__)


def _digest(*fields: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join(fields), digest_size=_DIGEST, usedforsecurity=False).digest()


def _entry(data: bytes, at: int) -> Failure:
    when, count, *lengths = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    texts = []
    for length, limit in zip(lengths, _LIMITS, strict=True):
        texts.append(data[at : at + min(length, limit)].decode("utf-8", "ignore"))
        at += length
    return Failure(when, count, *texts)
