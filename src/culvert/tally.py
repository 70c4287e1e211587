"""Numbers in memory that the processes of a daemon share: a row for each process that counts.

A row is one page, so that nobody else writes near to what a process counts, and counting costs no more than
with a number of its own. Some cells have a fixed meaning (`Cell`); the others belong to labels, whose names
are told to all processes by a directory (`Names`). Row 0 has what processes counted that have ended, and what
the parent of all counts itself. Gauges, which say how something is now, end with their process.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import mmap
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

ROWS = 1024
"""Processes that can be seen counting at a time. What those beyond it count is lost: that would take many
workers and many reloads that old connections have outlived."""

CELLS = 512
"""Numbers of a row, of eight bytes each: a page."""

GAUGES = 128
"""The cells in front, which say how something is now."""

TARGETS = 40
"""Targets of a service whose state is shown; the first ones, where it has more."""

_TARGET_CELLS = 3
"""Which one it is (`target_key`), when that was found, and its addresses, of which so many answer. A reload
may have put another target into its place, and workers of before it go on showing theirs."""
_TARGETS_AT = 8
_USABLE = 32
"""Bits of how many addresses answer; the number of all stands above them."""
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets in seconds; one bucket follows for what takes longer."""

_HISTOGRAM = len(BOUNDS) + 2
_LABELS_AT = 192
LABELS = CELLS - _LABELS_AT
_CAPS = {"cipher": 80, "group": 48}
_CAP = 24
"""Labels of one family. They are Culvert's or OpenSSL's own words, of which there are fewer: the bound makes
sure of it. What comes after them counts as `OTHER`."""

OTHER = "other"
_NAME = 96
_NUMBER = 8


class Cell(enum.IntEnum):
    """Cells with a fixed meaning: gauges below `GAUGES`, then what only ever grows.

    Those of the daemon itself stand in its own tally; times are seconds since 1970.
    """

    OPEN = 0
    SINCE = 1
    RELOADED_AT = 2
    RELOAD_FAILED = 3
    STOPPING = 4
    RELOADS_DUE = 5
    """How many reloads will have worked or failed once those that were asked for are over."""
    VPN_PEERS_TLS = 6
    VPN_PEERS_DTLS = 7

    ACCEPTED = GAUGES
    HANDSHAKES = GAUGES + 1
    HANDSHAKES_FAILED = GAUGES + 2
    RESUMED = GAUGES + 3
    REDIRECTED = GAUGES + 4
    TRUNCATED = GAUGES + 5
    SENT_TO_TLS = GAUGES + 6
    SENT_TO_PLAIN = GAUGES + 7
    RELOADS = GAUGES + 8
    RELOADS_FAILED = GAUGES + 9
    RESTARTS = GAUGES + 10

    HANDSHAKE_TIME = GAUGES + 16
    CONNECT_TIME = GAUGES + 16 + _HISTOGRAM

    VPN_PACKETS_TO_TLS = GAUGES + 16 + 2 * _HISTOGRAM
    VPN_PACKETS_TO_PLAIN = VPN_PACKETS_TO_TLS + 1
    VPN_REFUSED = VPN_PACKETS_TO_TLS + 2
    VPN_FALLBACKS = VPN_PACKETS_TO_TLS + 3
    VPN_MOVES = VPN_PACKETS_TO_TLS + 4
    VPN_STRAYS = VPN_PACKETS_TO_TLS + 5


class Names:
    """The directory of labels: which cell counts which label of which family. It only ever grows."""

    def __init__(self, lock: AbstractContextManager[None] | None = None) -> None:
        """`lock` is held by who enters a label, where processes share this."""
        self._lock = lock or contextlib.nullcontext()
        self._memory = mmap.mmap(-1, _NUMBER + LABELS * _NAME)
        self._count = memoryview(self._memory)[:_NUMBER].cast("Q")
        self._cells: dict[tuple[str, str], int] = {}
        self._families: Counter[str] = Counter()
        self._read = 0

    def cell(self, family: str, label: str) -> int:
        """The cell of a label, entered where it is new; that of `OTHER` where its family is full."""
        found = self._cells.get((family, label))
        return found if found is not None else self._enter(family, label)

    def known(self) -> Mapping[tuple[str, str], int]:
        """The cells of all labels that any process has counted."""
        self._catch_up()
        return self._cells

    def _enter(self, family: str, label: str) -> int:
        with self._lock:
            self._catch_up()
            found = self._cells.get((family, label))
            if found is not None:
                return found
            name = f"{family}\0{label}".encode()
            full = self._families[family] >= _CAPS.get(family, _CAP) and label != OTHER
            if full or len(name) > _NAME or self._read == LABELS:
                return self._cells.get((family, OTHER)) or self._append(family, OTHER)
            return self._append(family, label)

    def _append(self, family: str, label: str) -> int:
        if self._read == LABELS:
            return CELLS - 1
        at = _NUMBER + self._read * _NAME
        self._memory[at : at + _NAME] = f"{family}\0{label}".encode().ljust(_NAME, b"\0")
        self._count[0] = self._read + 1
        self._catch_up()
        return self._cells[family, label]

    def _catch_up(self) -> None:
        while self._read < min(self._count[0], LABELS):
            at = _NUMBER + self._read * _NAME
            name = self._memory[at : at + _NAME].rstrip(b"\0").decode("utf-8", "replace")
            family, _, label = name.partition("\0")
            self._cells[family, label] = _LABELS_AT + self._read
            self._families[family] += 1
            self._read += 1


class Tally:
    """The rows of one service, or of the daemon itself. `own` is the row in which this process counts."""

    def __init__(self, names: Names, *, shared: bool) -> None:
        self.names = names
        rows = 1 + ROWS if shared else 1
        self._memory = mmap.mmap(-1, rows * CELLS * _NUMBER)
        self._cells = memoryview(self._memory).cast("Q")
        self.ended = self._cells[:CELLS]
        """Row 0. The parent of all alone writes to it."""
        self.own = self.ended

    @classmethod
    def private(cls) -> Tally:
        """For a process that counts for itself alone."""
        return cls(Names(), shared=False)

    def enter(self, slot: int) -> None:
        """Count for this process there from now on."""
        self.own = self._row(slot) if slot < ROWS else memoryview(bytearray(CELLS * _NUMBER)).cast("Q")

    def bury(self, slot: int) -> None:
        """Keep what a process has counted that has ended, and empty its row."""
        if slot >= ROWS:
            return
        row, ended = self._row(slot), self.ended
        for at, number in enumerate(row[GAUGES:].tolist(), GAUGES):
            if number:
                ended[at] += number
        start = (1 + slot) * CELLS * _NUMBER
        self._memory[start : start + CELLS * _NUMBER] = bytes(CELLS * _NUMBER)

    def read(self, slots: int) -> Reading:
        """What the processes in the first `slots` slots have counted."""
        rows = [self._row(slot).tolist() for slot in range(min(slots, ROWS))]
        ended = self.ended.tolist()
        return Reading(self.names, [sum(column) for column in zip(ended, *rows, strict=True)], rows)

    def _row(self, slot: int) -> memoryview:
        return self._cells[(1 + slot) * CELLS : (2 + slot) * CELLS]


class Reading:
    """What was found in a tally at one moment: `totals` over all processes; `rows` are of those that live."""

    def __init__(self, names: Names, totals: list[int], rows: list[list[int]]) -> None:
        self._names = names
        self.totals = totals
        self._rows = rows

    def family(self, family: str) -> dict[str, int]:
        """How often each label of a family was counted, zeros left out, in the order of their names."""
        known = sorted(self._names.known().items())
        counted = {label: self.totals[at] for (one, label), at in known if one == family}
        return {label: number for label, number in counted.items() if number}

    def histogram(self, cell: Cell) -> Histogram:
        """A histogram, by the cell that it begins with."""
        numbers = self.totals[cell : cell + _HISTOGRAM]
        return Histogram(numbers[:-1], numbers[-1] / 1e6)

    def target(self, index: int, key: int) -> TargetReading | None:
        """What the process knows of a target that has found out last; None where none has tried it."""
        at = _TARGETS_AT + index * _TARGET_CELLS
        if index >= TARGETS:
            return None
        found, state = max(
            ((row[at + 1], row[at + 2]) for row in self._rows if row[at] == key), default=(0, 0)
        )
        return TargetReading(state >> _USABLE, state & ((1 << _USABLE) - 1)) if found else None


class Histogram:
    """Durations: how many fell into each bucket, and their sum in seconds."""

    def __init__(self, counts: list[int], seconds: float) -> None:
        self.counts = counts
        self.seconds = seconds

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Each upper bound with how many took no longer; the last is infinite."""
        total = 0
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            total += count
            yield bound, total


class TargetReading:
    """How a target fares: how many addresses it has, and how many of them are not known to fail."""

    def __init__(self, addresses: int, usable: int) -> None:
        self.addresses = addresses
        self.usable = usable


def target_key(address: str) -> int:
    """A number for a target, as the configuration writes it; never 0."""
    return int.from_bytes(hashlib.blake2b(address.encode(), digest_size=7).digest()) + 1


def write_target(row: memoryview, index: int, key: int, addresses: int, usable: int) -> None:
    """Show how a target fares, as found now, by a clock that all processes share.

    What a process shows first it has not found out: whatever another one has found is newer than that.
    """
    if index < TARGETS:
        at = _TARGETS_AT + index * _TARGET_CELLS
        known = row[at] == key
        row[at + 1] = 0  # what stands there meanwhile is nobody's
        row[at], row[at + 2] = key, addresses << _USABLE | usable
        row[at + 1] = time.monotonic_ns() if known else 1
