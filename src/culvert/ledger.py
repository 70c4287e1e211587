"""What all processes of a daemon hold together, counted in memory that they share.

Each process has a slot: a column of its own in every count, that no other process writes to, so that
counting takes no lock. A sum over the columns is read without one too, and may be old by the moment that
another process needs to write: whoever must keep to a limit adds first and looks then (`Count.take`), so
that two who come at once may both be refused, and never are one too many.

What is counted is made before the fork, by the process that will be the parent, and kept over reloads: the
workers of an earlier generation count on in their slots. The parent empties the slot of a child that has
ended (`bury`), however that happened, and keeps what that one had counted for good, in a tally.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import time
import weakref
from collections.abc import Mapping

from culvert.failures import Failures
from culvert.tally import Names, Reading, Tally

SLOTS = 4096
"""Processes that can count at a time: far more than there are in a daemon with the most workers and several
reloads of which connections are left. A count is so many numbers of four bytes, of which the kernel gives
memory to those pages that are used."""

TABLES = 256
"""Slots that have a table of addresses. What the processes beyond it hold of an address, they alone know."""

WAYS = 8
"""Places in which an address can stand: one look at them finds it, or shows that it is not there."""

ENTRIES = 16384
"""Addresses that a table holds: 192 kB a process, whatever the clients do."""

_HELPER = 1 << 31
"""What the owner of a slot is marked with that does not serve: more than any process's number (proc(5))."""

_LEAVING = 1 << 30
"""The same for one that accepts nothing any more, and only finishes what it has."""

_MARKS = _HELPER | _LEAVING

_NAMES_BYTE = 1 << 20
"""The byte of the lock on the directory of labels: beyond those of any number of buckets."""

_FAILURES_BYTE = _NAMES_BYTE + 1

_READINGS = 50
_READING_PAUSE = 0.001
"""How often, and for how many seconds, to wait for a parent that is just burying a child; if it has died in
the middle of that, what is found counts."""

_KEY = 8
_ROW = WAYS * _KEY
_TABLE = ENTRIES * _KEY
_NUMBER = 4


class Ledger:
    """The counts of a daemon by their names, and the slots of its processes."""

    def __init__(self) -> None:
        # The owners of the slots behind their number: how many there are up to the last one that is taken.
        self._owners = _numbers(1 + SLOTS)
        self._file = _File()
        self._lock = Lock(self._file, 0)
        self._slot: int | None = None
        self._process = 0
        self._counts: dict[str, Count] = {}
        self._buckets: dict[str, Bucket] = {}
        self._addresses: Addresses | None = None
        self._names = Names(Lock(self._file, _NAMES_BYTE))
        self._tallies: dict[str, Tally] = {}
        self._failures: Failures | None = None
        self._changing = _numbers(1)

    def claim(self, *, serves: bool = True) -> None:
        """Take a slot for this process, unless it has one. Raises OSError where none is free.

        One that does not serve counts, but is no one of `processes`.
        """
        if self._process == os.getpid():
            return
        with self._lock:
            slot = next((slot for slot in range(SLOTS) if not self._owners[1 + slot]), None)
            if slot is None:
                raise OSError(f"{SLOTS} processes hold connections already")
            self._process = os.getpid()
            self._owners[1 + slot] = self._process if serves else self._process | _HELPER
            self._owners[0] = max(self._owners[0], 1 + slot)
        self._slot = slot
        for count in self._counts.values():
            count.enter(slot)
        for tally in self._tallies.values():
            tally.enter(slot)
        if self._addresses is not None:
            self._addresses.enter(slot)

    def leave(self) -> None:
        """Go on counting, and be no one of those who are `accepting` any more."""
        if self._slot is not None and self._process == os.getpid():
            self._owners[1 + self._slot] |= _LEAVING

    def bury(self, process: int) -> None:
        """Give back what a process held that has ended; nothing where it held no slot."""
        with self._lock:
            used = self._owners[0]
            owners = self._owners[1 : 1 + used].tolist()
            held = [slot for slot, owner in enumerate(owners) if owner & ~_MARKS == process]
            if not held:
                return
            slot = held[0]
            for count in self._counts.values():
                count.empty(slot)
            if self._addresses is not None:
                self._addresses.empty(slot)
            self._changing[0] += 1  # odd: what is read now may be counted twice
            for tally in self._tallies.values():
                tally.bury(slot)
            self._changing[0] += 1
            self._owners[1 + slot] = 0
            owners[slot] = 0
            while owners and not owners[-1]:
                owners.pop()
            self._owners[0] = len(owners)

    def count(self, name: str) -> Count:
        """The count of this name; to be asked for before the fork."""
        if name not in self._counts:
            self._counts[name] = Count(self._owners, self._slot)
        return self._counts[name]

    def bucket(self, name: str) -> Bucket:
        """The tokens of this name; to be asked for before the fork."""
        if name not in self._buckets:
            self._buckets[name] = Bucket(Lock(self._file, 1 + len(self._buckets)))
        return self._buckets[name]

    def addresses(self) -> Addresses:
        """The connections of each address; to be asked for before the fork."""
        if self._addresses is None:
            self._addresses = Addresses(self._owners, self._slot)
        return self._addresses

    def tally(self, name: str) -> Tally:
        """What is counted under this name, and seen by all; to be asked for before the fork.

        It outlives the processes that count: what a service of this name counts later is added to it.
        """
        if name not in self._tallies:
            self._tallies[name] = Tally(self._names, shared=True)
            if self._slot is not None:
                self._tallies[name].enter(self._slot)
        return self._tallies[name]

    def failures(self) -> Failures:
        """The last failures of all processes; to be asked for before the fork."""
        if self._failures is None:
            self._failures = Failures(Lock(self._file, _FAILURES_BYTE))
        return self._failures

    def processes(self) -> int:
        """How many processes serve, those that only finish what they have included."""
        return self._unmarked(_HELPER)

    def accepting(self) -> int:
        """How many processes serve and take new connections."""
        return self._unmarked(_MARKS)

    def _unmarked(self, marks: int) -> int:
        return sum(1 for owner in self._owners[1 : 1 + self._owners[0]] if owner and not owner & marks)

    def read(self) -> Mapping[str, Reading]:
        """What every tally says. No number of it is ever smaller at a later reading, gauges excepted."""
        for _ in range(_READINGS):
            before = self._changing[0]
            found = {name: tally.read(self._owners[0]) for name, tally in self._tallies.items()}
            if before % 2 == 0 and before == self._changing[0]:
                break
            time.sleep(_READING_PAUSE)
        return found


class Count:
    """How many of something all processes hold."""

    __slots__ = ("_cells", "_own", "_owners")

    def __init__(self, owners: memoryview, own: int | None) -> None:
        self._cells = _numbers(SLOTS)
        self._owners = owners
        self._own = -1 if own is None else own

    def enter(self, slot: int) -> None:
        """Count for this process there from now on."""
        self._own = slot

    def empty(self, slot: int) -> None:
        self._cells[slot] = 0

    def take(self, limit: int) -> bool:
        """Hold one more, unless there are `limit` already; whether it is held."""
        cells, own = self._cells, self._own
        cells[own] += 1
        if sum(cells[: self._owners[0]]) <= limit:
            return True
        cells[own] -= 1
        return False

    def give(self) -> None:
        """Hold one less."""
        self._cells[self._own] -= 1

    def total(self) -> int:
        """How many all processes hold."""
        return sum(self._cells[: self._owners[0]])


class Addresses:
    """How many connections of an address all processes hold.

    A process knows its own exactly, and shows them to the others in a table: rows of WAYS places, of which a
    keyed hash chooses one that no client can aim at. Where a row is full, the address is left out of the
    table: it is not refused for what other clients do, and may have as many connections as its limit in each
    process that has no place for it.
    """

    def __init__(self, owners: memoryview, own: int | None) -> None:
        self._owners = owners
        self._own = own
        self._keys = mmap.mmap(-1, TABLES * _TABLE)
        self._places = memoryview(self._keys).cast("Q")
        self._numbers_map = mmap.mmap(-1, TABLES * ENTRIES * _NUMBER)
        self._numbers = memoryview(self._numbers_map).cast("I")
        self._secret = os.urandom(32)
        self._mine: dict[bytes, list[int]] = {}

    def enter(self, slot: int) -> None:
        """Count for this process there from now on."""
        self._own = slot

    def empty(self, slot: int) -> None:
        if slot < TABLES:
            _clear(self._keys, slot * _TABLE, _TABLE)
            _clear(self._numbers_map, slot * ENTRIES * _NUMBER, ENTRIES * _NUMBER)

    def hasher(self, name: str) -> hashlib.blake2b:
        """What makes keys of addresses, for those who count under this name: feed a copy with an address."""
        return hashlib.blake2b(
            name.encode() + b"\0", digest_size=_KEY, key=self._secret, usedforsecurity=False
        )

    def take(self, key: bytes, limit: int) -> bool:
        """Hold one more of this key, unless there are `limit` already; whether it is held."""
        mine = self._mine.get(key)
        if mine is None:
            mine = self._mine[key] = [0, self._place(key)]
        mine[0] += 1
        self._show(mine)
        if mine[0] <= limit and mine[0] + self._others(key) <= limit:
            return True
        self.give(key)
        return False

    def give(self, key: bytes) -> None:
        """Hold one less of this key."""
        mine = self._mine[key]
        mine[0] -= 1
        if mine[0]:
            self._show(mine)
            return
        del self._mine[key]
        if mine[1] >= 0:
            self._places[mine[1]] = 0
            self._numbers[mine[1]] = 0

    def _place(self, key: bytes) -> int:
        """Take a place in this process's table; -1 where there is none."""
        assert self._own is not None  # noqa: S101  a process that counts has claimed a slot
        if self._own >= TABLES:
            return -1
        first = self._own * ENTRIES + _row(key) * WAYS
        for place in range(first, first + WAYS):
            if not self._places[place]:
                self._keys[place * _KEY : place * _KEY + _KEY] = key
                return place
        return -1

    def _show(self, mine: list[int]) -> None:
        number, place = mine
        if place >= 0:
            self._numbers[place] = number

    def _others(self, key: bytes) -> int:
        found = 0
        find, row = self._keys.find, _row(key) * _ROW
        for slot in range(min(self._owners[0], TABLES)):
            if slot != self._own:
                start = slot * _TABLE + row
                at = find(key, start, start + _ROW)
                # Across two places there may be the same bytes by chance, once in 2 ** 60.
                if at >= 0 and not at % _KEY:
                    found += self._numbers[at // _KEY]
        return found


class Bucket:
    """A token bucket that all processes take from (the generic cell rate algorithm, ITU-T I.371).

    Its state is one time: when the bucket would be full again.
    """

    __slots__ = ("_full_at", "_lock")

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._full_at = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def take(self, rate: float, burst: float, now: float) -> bool:
        """Take a token of a bucket that holds `burst` and gets `rate` a second; whether there was one.

        `now` is of a monotonic clock that all processes share.
        """
        with self._lock:
            # No more can be missing than the bucket holds, though it may have been a larger one.
            full_at = min(max(self._full_at[0], now), now + burst / rate)
            left = full_at - now <= (burst - 1) / rate + _ROUNDING
            self._full_at[0] = full_at + 1 / rate if left else full_at
        return left

    def give(self, rate: float) -> None:
        """Put a token back that was not used."""
        with self._lock:
            self._full_at[0] -= 1 / rate


class _File:
    """A file in memory that is closed when nobody has this object any more."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("culvert-ledger")
        weakref.finalize(self, os.close, self.fd)


class Lock:
    """A lock between processes; the kernel lets go of it when its holder ends (a record lock, fcntl(2)).

    It is one byte of a file: locks of different bytes have nothing to do with each other.
    """

    __slots__ = ("_byte", "_file")

    def __init__(self, file: _File, byte: int) -> None:
        self._file = file
        self._byte = byte

    def __enter__(self) -> None:
        fcntl.lockf(self._file.fd, fcntl.LOCK_EX, 1, self._byte)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file.fd, fcntl.LOCK_UN, 1, self._byte)


_ROUNDING = 1e-9
"""Seconds: what the sums of many times may be off."""


def _numbers(count: int) -> memoryview:
    return memoryview(mmap.mmap(-1, count * _NUMBER)).cast("I")


def _clear(memory: mmap.mmap, start: int, size: int) -> None:
    """Make zeros of whole pages, and give them back where the kernel takes them."""
    try:
        memory.madvise(mmap.MADV_REMOVE, start, size)
    except OSError:
        memory[start : start + size] = bytes(size)


def _row(key: bytes) -> int:
    """The row of a table that this key stands in: the same in every table."""
    return int.from_bytes(key[:4], "little") % (ENTRIES // WAYS)
