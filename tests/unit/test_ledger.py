"""What processes hold together: sums over all of them, what one that died held, and what has no room."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.ledger import ENTRIES, TABLES, WAYS, Ledger
from culvert.metrics import LOST, loss_counter

from .forked import bound_life, in_child

A, B = b"address1", b"address2"


@contextlib.contextmanager
def held_elsewhere(ledger: Ledger, take: Callable[[], object]) -> Iterator[int]:
    """Another process that has taken something and holds it until it is killed, here at the latest."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            bound_life()
            ledger.claim()
            theirs.send(str(take()).encode())
            signal.pause()
        finally:
            os._exit(1)
    try:
        with ours, theirs:
            ours.settimeout(20)
            assert ours.recv(100) in (b"True", b"None")
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class TestProcesses:
    def test_one_that_helps_counts_but_does_not_serve(self) -> None:
        ledger = Ledger()
        count = loss_counter(ledger.tally(""), ["file"])
        ledger.claim(serves=False)
        assert ledger.processes() == 0
        count("file")
        assert ledger.read()[""].family(LOST) == {"file": 1}

    def test_one_that_leaves_serves_and_accepts_nothing(self) -> None:
        ledger = Ledger()
        ledger.leave()  # without a slot there is nothing to mark
        ledger.claim()
        assert (ledger.processes(), ledger.accepting()) == (1, 1)
        ledger.leave()
        assert (ledger.processes(), ledger.accepting()) == (1, 0)
        ledger.bury(os.getpid())
        assert ledger.processes() == 0

    def test_what_it_counted_outlives_it(self) -> None:
        ledger = Ledger()
        count = loss_counter(ledger.tally(""), ["file"])
        ledger.claim(serves=False)
        count("file")
        ledger.bury(os.getpid())
        assert ledger.tally("").ended[ledger.tally("").names.cell(LOST, "file")] == 1
        assert ledger.read()[""].family(LOST) == {"file": 1}


class TestCount:
    def test_no_more_than_the_limit_can_be_held(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        ledger.claim()
        assert [count.take(2) for _ in range(3)] == [True, True, False]
        count.give()
        assert count.take(2)
        assert count.total() == 2

    def test_what_others_hold_counts(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        ledger.claim()
        with held_elsewhere(ledger, lambda: count.take(2)), held_elsewhere(ledger, lambda: count.take(2)):
            assert not count.take(2)
            assert count.take(3)

    def test_what_a_dead_process_held_is_free_once_it_is_buried(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        ledger.claim()
        with held_elsewhere(ledger, lambda: count.take(1)) as pid:
            end(pid)
            assert not count.take(1)
            ledger.bury(pid)
            assert count.take(1)

    def test_a_slot_is_used_again(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        for _ in range(3):
            with held_elsewhere(ledger, lambda: count.take(1)) as pid:
                end(pid)
                ledger.bury(pid)
        assert count.total() == 0

    def test_burying_one_leaves_the_others_alone(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        with held_elsewhere(ledger, lambda: count.take(9)) as first:
            with held_elsewhere(ledger, lambda: count.take(9)):
                end(first)
                ledger.bury(first)
                assert count.total() == 1
            ledger.bury(first)
            ledger.bury(os.getpid())
            assert count.total() == 1

    def test_each_name_has_its_own(self) -> None:
        ledger = Ledger()
        one, other = ledger.count("one"), ledger.count("other")
        ledger.claim()
        assert one.take(1)
        assert other.take(1)
        assert ledger.count("one") is one

    def test_one_that_is_made_after_the_slot_was_taken(self) -> None:
        """As at a reload of a single process."""
        ledger = Ledger()
        ledger.claim()
        count, addresses = ledger.count("later"), ledger.addresses()
        assert count.take(1)
        assert addresses.take(A, 1)

    def test_claiming_twice_keeps_what_is_held(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        ledger.claim()
        assert count.take(1)
        ledger.claim()
        assert not count.take(1)

    def test_one_that_nobody_has_any_more_leaves_no_descriptor(self) -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names is all
        for _ in range(3):
            ledger = Ledger()
            ledger.bucket("b")
            ledger.addresses()
            ledger.count("c")
        del ledger
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_a_fork_has_a_slot_of_its_own(self) -> None:
        ledger = Ledger()
        count = ledger.count("things")
        ledger.claim()
        assert count.take(2)

        def child() -> None:
            ledger.claim()
            assert count.take(2)
            assert not count.take(2)

        assert in_child(child) == (0, "")
        assert count.total() == 2


class TestAddresses:
    def test_each_address_has_the_limit_for_itself(self) -> None:
        ledger = Ledger()
        addresses = ledger.addresses()
        ledger.claim()
        assert [addresses.take(A, 2) for _ in range(3)] == [True, True, False]
        assert addresses.take(B, 2)
        addresses.give(A)
        assert addresses.take(A, 2)

    def test_what_others_hold_of_it_counts(self) -> None:
        ledger = Ledger()
        addresses = ledger.addresses()
        ledger.claim()
        with held_elsewhere(ledger, lambda: addresses.take(A, 2)):
            assert addresses.take(A, 2)
            assert not addresses.take(A, 2)
            assert addresses.take(B, 1)

    def test_what_a_dead_process_held_is_free_once_it_is_buried(self) -> None:
        ledger = Ledger()
        addresses = ledger.addresses()
        ledger.claim()
        with held_elsewhere(ledger, lambda: addresses.take(A, 1)) as pid:
            end(pid)
            assert not addresses.take(A, 1)
            ledger.bury(pid)
            assert addresses.take(A, 1)

    def test_one_that_is_given_back_leaves_its_place_to_others(self) -> None:
        ledger = Ledger()
        addresses = ledger.addresses()
        ledger.claim()
        for number in range(3 * ENTRIES):
            key = number.to_bytes(8, "big")
            assert addresses.take(key, 1)
            addresses.give(key)
        with held_elsewhere(ledger, lambda: addresses.take(A, 1)):
            assert not addresses.take(A, 1)

    def test_of_a_full_row_each_process_counts_its_own(self) -> None:
        ledger = Ledger()
        addresses = ledger.addresses()
        ledger.claim()
        same_row = [bytes(4) + number.to_bytes(4, "little") for number in range(1, WAYS + 2)]
        *shown, left_out = same_row

        def fill() -> None:
            for key in same_row:
                assert addresses.take(key, 1)

        with held_elsewhere(ledger, fill):
            assert not any(addresses.take(key, 1) for key in shown)
            assert addresses.take(left_out, 1)
            assert not addresses.take(left_out, 1)

    def test_names_do_not_mix(self) -> None:
        addresses = Ledger().addresses()
        keys = set()
        for name in ("one", "other"):
            hasher = addresses.hasher(name)
            hasher.update(b"\x7f\0\0\1")
            keys.add(hasher.digest())
        assert len(keys) == 2
        assert {len(key) for key in keys} == {8}

    @given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=200), st.integers(1, 4))
    def test_it_counts_as_a_dictionary_would(self, steps: list[tuple[int, bool]], limit: int) -> None:
        ledger = Ledger()
        addresses = ledger.addresses()
        ledger.claim()
        model: dict[bytes, int] = {}
        for number, taking in steps:
            key = (number % 7).to_bytes(4, "little") + (number + 1).to_bytes(4, "little")
            held = model.get(key, 0)
            if taking:
                assert addresses.take(key, limit) == (held < limit)
                model[key] = min(held + 1, limit)
            elif held:
                addresses.give(key)
                model[key] = held - 1


class TestBucket:
    def test_a_burst_and_then_the_rate(self) -> None:
        bucket = Ledger().bucket("b")
        assert [bucket.take(10, 3, 100.0) for _ in range(4)] == [True, True, True, False]
        assert not bucket.take(10, 3, 100.09)
        assert bucket.take(10, 3, 100.1)
        assert not bucket.take(10, 3, 100.1)

    def test_it_never_holds_more_than_the_burst(self) -> None:
        bucket = Ledger().bucket("b")
        assert [bucket.take(10, 2, 1e6) for _ in range(3)] == [True, True, False]
        assert [bucket.take(10, 2, 2e6) for _ in range(3)] == [True, True, False]

    def test_over_a_long_time_the_rate_holds(self) -> None:
        bucket = Ledger().bucket("b")
        taken = sum(bucket.take(7, 5, 100 + moment / 1000) for moment in range(10_000))
        assert taken in (7 * 10 + 4, 7 * 10 + 5)

    def test_what_was_not_used_is_put_back(self) -> None:
        bucket = Ledger().bucket("b")
        assert bucket.take(1, 1, 100.0)
        bucket.give(1)
        assert bucket.take(1, 1, 100.0)

    def test_it_is_one_for_all_processes(self) -> None:
        ledger = Ledger()
        bucket = ledger.bucket("b")
        with held_elsewhere(ledger, lambda: bucket.take(1, 2, 100.0)):
            assert bucket.take(1, 2, 100.0)
            assert not bucket.take(1, 2, 100.0)

    def test_another_rate_forgives_what_the_old_one_would_not(self) -> None:
        """A reload from one in a thousand seconds to many a second does not wait for the thousand."""
        bucket = Ledger().bucket("b")
        assert [bucket.take(0.001, 2, 100.0) for _ in range(2)] == [True, True]
        assert not bucket.take(10, 1, 100.0)
        assert bucket.take(10, 1, 100.1)


@pytest.mark.parametrize("slot", [0, TABLES - 1, TABLES])
def test_processes_without_a_table_still_count_their_own(slot: int) -> None:
    ledger = Ledger()
    addresses = ledger.addresses()
    addresses.enter(slot)
    assert addresses.take(A, 1)
    assert not addresses.take(A, 1)
    addresses.give(A)
    assert addresses.take(A, 1)
    addresses.empty(slot)
