"""The memory in which processes count: who sees what, what outlives whom, and the bounds of labels."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from culvert.ledger import Ledger
from culvert.metrics import Counters, Event, note
from culvert.tally import BOUNDS, CELLS, LABELS, OTHER, ROWS, TARGETS, Cell, Names, Tally, target_key


def child(work: Callable[[], object]) -> int:
    """Does `work` in a fork, to its end; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def counted(ledger: Ledger, tally: Tally, work: Callable[[Counters], object]) -> int:
    """Counts in a process of its own, which has ended but is not buried; its number."""

    def count() -> None:
        ledger.claim()
        work(Counters(tally))

    return child(count)


def accept(counters: Counters) -> None:
    counters.accepted += 2
    counters.open += 1
    counters.negotiated("TLSv1.3", "A", "X25519")


def test_cells_do_not_overlap() -> None:
    histogram = len(BOUNDS) + 2
    taken = [int(cell) for cell in Cell if cell not in (Cell.HANDSHAKE_TIME, Cell.CONNECT_TIME)]
    taken += [at + n for at in (Cell.HANDSHAKE_TIME, Cell.CONNECT_TIME) for n in range(histogram)]
    assert len(set(taken)) == len(taken)
    assert max(taken) < CELLS - LABELS
    assert Cell.SENT_TO_PLAIN == Cell.SENT_TO_TLS + 1


def test_what_a_process_counts_is_seen_and_outlives_it() -> None:
    ledger = Ledger()
    tally = ledger.tally("s")
    pid = counted(ledger, tally, accept)
    living = ledger.read()["s"]
    assert (living.totals[Cell.ACCEPTED], living.totals[Cell.OPEN]) == (2, 1)
    ledger.bury(pid)
    ended = ledger.read()["s"]
    assert (ended.totals[Cell.ACCEPTED], ended.totals[Cell.OPEN]) == (2, 0)
    assert ended.family("cipher") == {"A": 1}


def test_the_next_process_in_a_slot_adds_to_what_was_counted() -> None:
    ledger = Ledger()
    tally = ledger.tally("s")
    for _ in range(3):
        ledger.bury(counted(ledger, tally, accept))
    counted(ledger, tally, accept)
    assert ledger.read()["s"].totals[Cell.ACCEPTED] == 8


def test_processes_name_the_same_label_alike() -> None:
    ledger = Ledger()
    tally = ledger.tally("s")

    def name(*labels: str) -> Callable[[Counters], None]:
        def count(counters: Counters) -> None:
            for label in labels:
                counters.negotiated("TLSv1.3", "A", label)

        return count

    counted(ledger, tally, name("x", "y"))
    counted(ledger, tally, name("y", "z"))
    assert ledger.read()["s"].family("group") == {"x": 1, "y": 2, "z": 1}


def test_a_family_has_a_bounded_number_of_labels() -> None:
    counters = Counters()
    for number in range(2000):
        counters.failures[f"failure {number}"] += 1
        counters.ended[f"end {number}"] += 1
    counters.refused["denied"] += 1
    assert counters.failures[OTHER] > 1900
    assert counters.refused["denied"] == 1


def test_the_directory_never_grows_beyond_its_memory() -> None:
    names = Names()
    cells = {names.cell(f"family {number}", "label") for number in range(2 * LABELS)}
    assert max(cells) < CELLS
    assert min(cells) >= CELLS - LABELS


@pytest.mark.parametrize("label", ["x" * 200, "ä" * 90])
def test_a_label_that_is_too_long_is_another_one(label: str) -> None:
    counters = Counters()
    counters.rejected[label] += 1
    assert counters.rejected[OTHER] == 1


def test_durations_fall_into_their_buckets() -> None:
    ledger = Ledger()
    ledger.claim()
    counters = Counters(ledger.tally("s"))
    for seconds in (0.0005, 0.001, 0.002, 3600.0):
        counters.took(Cell.CONNECT_TIME, seconds)
    histogram = ledger.read()["s"].histogram(Cell.CONNECT_TIME)
    assert list(histogram.buckets())[:2] == [(0.001, 2), (0.0025, 3)]
    assert list(histogram.buckets())[-1] == (float("inf"), 4)
    assert histogram.seconds == pytest.approx(3600.0035)


def fails(counters: Counters) -> None:
    """Find that a target has one address, which does not answer."""
    counters.show_target(0, "a:1", 1, 1)
    counters.show_target(0, "a:1", 1, 0)


def test_who_found_out_last_is_believed_of_a_target() -> None:
    ledger = Ledger()
    tally = ledger.tally("s")

    counted(ledger, tally, fails)
    counted(ledger, tally, lambda counters: counters.show_target(0, "a:1", 1, 1))
    target = ledger.read()["s"].target(0, target_key("a:1"))
    assert target is not None
    assert (target.addresses, target.usable) == (1, 0)
    assert ledger.read()["s"].target(1, target_key("a:1")) is None


def test_what_was_found_of_another_target_in_its_place_is_not_its_own() -> None:
    ledger = Ledger()
    tally = ledger.tally("s")

    counted(ledger, tally, fails)
    assert ledger.read()["s"].target(0, target_key("b:1")) is None
    counted(ledger, tally, lambda counters: counters.show_target(0, "b:1", 2, 2))
    target = ledger.read()["s"].target(0, target_key("b:1"))
    assert target is not None
    assert (target.addresses, target.usable) == (2, 2)


def test_a_target_beyond_those_that_are_shown_is_not_known() -> None:
    ledger = Ledger()
    ledger.claim()
    counters = Counters(ledger.tally("s"))
    counters.show_target(TARGETS, "a:1", 1, 1)
    assert ledger.read()["s"].target(TARGETS, target_key("a:1")) is None
    assert counters.accepted == 0


def test_a_process_beyond_the_rows_counts_for_itself() -> None:
    tally = Tally(Names(), shared=True)
    tally.enter(ROWS)
    Counters(tally).accepted += 1
    tally.bury(ROWS)
    assert tally.read(ROWS + 1).totals[Cell.ACCEPTED] == 0


def test_events_are_counted_for_the_daemon() -> None:
    ledger = Ledger()
    daemon = ledger.tally("")
    for event in Event:
        note(daemon, event)
    totals = ledger.read()[""].totals
    assert [totals[cell] for cell in (Cell.RELOADS, Cell.RELOADS_FAILED, Cell.RESTARTS)] == [1, 1, 1]
    assert totals[Cell.STOPPING] == 1


def test_a_process_that_counts_alone_needs_no_ledger() -> None:
    counters = Counters()
    counters.accepted += 1
    counters.refused["full"] += 2
    assert str(counters).startswith("1 accepted, 0 handshakes")
    assert str(counters).endswith("; refused: 2 full")
