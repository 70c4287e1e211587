"""The last failures are kept, the same ones counted together, and none of a kind drives out the others."""

from __future__ import annotations

import contextlib
import os
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.failures import KEPT, Failures
from culvert.ledger import Ledger

from .forked import bound_life


@pytest.fixture
def failures() -> Failures:
    return Failures(contextlib.nullcontext())


def test_the_last_failure_is_the_first_to_be_read(failures: Failures) -> None:
    failures.record("a", "192.0.2.1:1024", "TLS failed", "no shared cipher")
    failures.record("b", "::1:7", "reset", "plain side: Connection reset by peer")
    first, second = failures.read()
    assert (first.service, first.peer, first.kind) == ("b", "::1:7", "reset")
    assert (second.reason, second.count) == ("no shared cipher", 1)
    assert second.time <= first.time


def test_the_same_of_one_address_is_counted_together(failures: Failures) -> None:
    for port in (1, 2, 3):
        failures.record("a", f"192.0.2.1:{port}", "TLS failed", "no shared cipher")
    failures.record("a", "192.0.2.2:1", "TLS failed", "no shared cipher")
    assert [(one.peer, one.count) for one in failures.read()] == [("192.0.2.2:1", 1), ("192.0.2.1:3", 3)]


def test_a_client_without_an_address_is_itself(failures: Failures) -> None:
    failures.record("a", "unix socket", "reset", "x")
    failures.record("a", "program /bin/true", "reset", "x")
    assert [one.peer for one in failures.read()] == ["program /bin/true", "unix socket"]


def test_what_fails_all_the_time_drives_out_itself(failures: Failures) -> None:
    failures.record("a", "192.0.2.1:1", "negotiation failed", "once")
    failures.record("b", "192.0.2.1:1", "reset", "once")
    for number in range(3 * KEPT):
        failures.record("a", f"192.0.2.{number}:1", "reset", "always")
    found = failures.read()
    assert len(found) == KEPT
    assert [one.reason for one in found[-2:]] == ["once", "once"]
    assert found[0].peer == f"192.0.2.{3 * KEPT - 1}:1"


@given(st.lists(st.tuples(*[st.text(max_size=300)] * 4), max_size=5))
def test_any_text_is_kept_within_bounds(texts: list[tuple[str, str, str, str]]) -> None:
    failures = Failures(contextlib.nullcontext())
    for service, peer, kind, reason in texts:
        failures.record(service, peer, kind, reason)
    found = failures.read()
    assert sum(one.count for one in found) == len(texts)
    for one in found:
        assert max(len(text.encode()) for text in (one.service, one.peer, one.kind, one.reason)) <= 240


def test_a_lone_surrogate_is_kept_as_its_escape(failures: Failures) -> None:
    failures.record("a", "\udcff", "reset", "\udcff")
    assert failures.read()[0].reason == "\\udcff"


def test_what_a_process_kept_outlives_it() -> None:
    ledger = Ledger()
    failures = ledger.failures()
    child = os.fork()
    if not child:
        bound_life()
        failures.record("a", "192.0.2.1:1", "reset", "of the child")
        os._exit(0)
    os.waitpid(child, 0)
    ledger.bury(child)
    assert [one.reason for one in ledger.failures().read()] == ["of the child"]


def test_processes_that_write_at_once_lose_nothing() -> None:
    failures = Ledger().failures()
    children = []
    for number in range(3):
        if not (child := os.fork()):
            bound_life()
            for _ in range(300):
                failures.record("a", "192.0.2.1:1", "reset", "the same")
                failures.record("a", "192.0.2.1:1", "reset", f"of {number}")
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert {one.reason: one.count for one in failures.read()} == {
        "the same": 900,
        "of 0": 300,
        "of 1": 300,
        "of 2": 300,
    }


def test_a_failure_costs_little() -> None:
    failures = Ledger().failures()
    numbers = iter(range(10000))
    seconds = timeit.timeit(
        lambda: failures.record("a", f"192.0.2.{next(numbers)}:1", "reset", "x"), number=1000
    )
    assert seconds < 1.0, "a millisecond each: a hundredth of that is expected"
