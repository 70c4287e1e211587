"""What is counted: a set of numbers for each service, to which every process adds its own.

Where the admin endpoint is to show them they stand in memory that all processes of the daemon see
(`culvert.tally`), so that nobody has to be asked for them, and they outlive the process.
"""

from __future__ import annotations

import enum
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable

from culvert.tally import BOUNDS, Cell, Tally, target_key, write_target

_SUM_AT = len(BOUNDS) + 1


class _Number:
    """A counter as an attribute."""

    def __init__(self, cell: Cell) -> None:
        self._cell = int(cell)

    def __get__(self, counters: Counters, owner: type[Counters]) -> int:
        number: int = counters.row[self._cell]
        return number

    def __set__(self, counters: Counters, number: int) -> None:
        counters.row[self._cell] = number


class Family:
    """How often each of several things happened, by a word of Culvert's or OpenSSL's own, never a peer's."""

    __slots__ = ("_name", "_tally")

    def __init__(self, tally: Tally, name: str) -> None:
        self._tally = tally
        self._name = name

    def __getitem__(self, label: str) -> int:
        number: int = self._tally.own[self._tally.names.cell(self._name, label)]
        return number

    def __setitem__(self, label: str, number: int) -> None:
        self._tally.own[self._tally.names.cell(self._name, label)] = number

    def __str__(self) -> str:
        known = sorted(self._tally.names.known().items())
        counted = ((self._tally.own[at], label) for (family, label), at in known if family == self._name)
        return ", ".join(f"{number} {label}" for number, label in counted if number)


class Counters:
    """What a service has done in this process. `ended` counts by the way of the end, `failures` by what a
    handshake failed for, `refused` by the reason for which connections were turned away before a handshake,
    `rejected` by what was wrong with peers' certificates and keys, `ocsp` by what was found there (good,
    revoked, or why that could not be told), `unreached` by why no target was reached.
    """

    __slots__ = (
        "_agreed",
        "_tally",
        "carried",
        "ended",
        "failures",
        "ocsp",
        "refused",
        "rejected",
        "row",
        "unreached",
    )

    accepted = _Number(Cell.ACCEPTED)
    handshakes = _Number(Cell.HANDSHAKES)
    handshakes_failed = _Number(Cell.HANDSHAKES_FAILED)
    resumed = _Number(Cell.RESUMED)
    redirected = _Number(Cell.REDIRECTED)
    truncated = _Number(Cell.TRUNCATED)
    sent_to_tls = _Number(Cell.SENT_TO_TLS)
    sent_to_plain = _Number(Cell.SENT_TO_PLAIN)
    open = _Number(Cell.OPEN)

    def __init__(self, tally: Tally | None = None) -> None:
        """`tally` is where all processes see it; without one, this process alone does."""
        self._tally = tally = tally or Tally.private()
        self.row = tally.own
        self.carried = self.row[Cell.SENT_TO_TLS : Cell.SENT_TO_PLAIN + 1]
        """What a relay adds to as it goes: bytes sent to TLS, and to the plain side."""
        self.ended = Family(tally, "ended")
        self.failures = Family(tally, "failure")
        self.refused = Family(tally, "refused")
        self.rejected = Family(tally, "rejected")
        self.ocsp = Family(tally, "ocsp")
        self.unreached = Family(tally, "unreached")
        self._agreed: dict[tuple[str, str, str], tuple[int, ...]] = {}

    def family(self, name: str) -> Family:
        """The counts of a family of labels that only some services have."""
        return Family(self._tally, name)

    def negotiated(self, version: str, cipher: str, group: str) -> None:
        """Count what a handshake has come to."""
        agreed = (version, cipher, group)
        cells = self._agreed.get(agreed)
        if cells is None:
            families = zip(("version", "cipher", "group"), agreed, strict=True)
            cells = self._agreed[agreed] = tuple(self._tally.names.cell(*one) for one in families)
        for cell in cells:
            self.row[cell] += 1

    def took(self, what: Cell, seconds: float) -> None:
        """Count a duration in a histogram: HANDSHAKE_TIME or CONNECT_TIME."""
        self.row[what + bisect_left(BOUNDS, seconds)] += 1
        self.row[what + _SUM_AT] += int(seconds * 1e6)

    def show_target(self, index: int, address: str, addresses: int, usable: int) -> None:
        """Show how the target of this number fares, which the configuration calls `address`."""
        write_target(self.row, index, target_key(address), addresses, usable)

    def __str__(self) -> str:
        lists: Iterable[tuple[str, Family]] = (
            ("refused", self.refused),
            ("ended", self.ended),
            ("rejected", self.rejected),
            ("OCSP", self.ocsp),
        )
        return (
            f"{self.accepted} accepted, {self.handshakes} handshakes ({self.resumed} resumed), "
            f"{self.handshakes_failed} failed, {self.redirected} redirected, {self.truncated} truncated, "
            f"{self.sent_to_tls} byte(s) sent to TLS, {self.sent_to_plain} byte(s) sent to socket"
        ) + "".join(f"; {name}: {found}" for name, family in lists if (found := str(family)))


LOST = "lost"
"""The family of the daemon's own tally that counts lost log lines."""


def loss_counter(tally: Tally, kinds: Iterable[str]) -> Callable[[str], None]:
    """What counts lost log lines in the daemon's own tally, in the row of whichever process calls it."""
    family = Family(tally, LOST)
    for kind in kinds:  # entered before the fork: a process that cannot log has no time to wait for a lock
        tally.names.cell(LOST, kind)

    def count(kind: str) -> None:
        family[kind] += 1

    return count


class Event(enum.Enum):
    """What happens to the daemon itself."""

    RELOAD_BEGUN = "reload begun"
    RELOAD_QUEUED = "reload to begin when another one is over"
    RELOADED = "reloaded"
    RELOAD_FAILED = "reload failed"
    WORKER_REPLACED = "worker replaced"
    STOPPING = "stopping"


def note(tally: Tally, event: Event) -> None:
    """Count an event in the daemon's own tally; for the parent of all processes alone."""
    row = tally.ended
    match event:
        case Event.RELOAD_BEGUN:
            row[Cell.RELOADS_DUE] = row[Cell.RELOADS] + row[Cell.RELOADS_FAILED] + 1
        case Event.RELOAD_QUEUED:
            row[Cell.RELOADS_DUE] = row[Cell.RELOADS] + row[Cell.RELOADS_FAILED] + 2
        case Event.RELOADED:  # who waits for the count then reads what came of it
            row[Cell.RELOAD_FAILED], row[Cell.RELOADED_AT] = 0, int(time.time())
            row[Cell.RELOADS] += 1
        case Event.RELOAD_FAILED:
            row[Cell.RELOAD_FAILED] = 1
            row[Cell.RELOADS_FAILED] += 1
        case Event.WORKER_REPLACED:
            row[Cell.RESTARTS] += 1
        case Event.STOPPING:
            row[Cell.STOPPING] = 1
