"""The longest packet of a path is found, confirmed, and found anew where the way has changed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.vpn.datagram.path_mtu import BASE, CONFIRM, FLOOR, HIGHEST, RAISE, STEP, TRIES, PathMtu


class Path:
    """A path that carries packets up to `carries`, and loses some of those as well."""

    def __init__(self, highest: int, carries: int, loss: float = 0.0, seed: int = 0) -> None:
        self.now = 0.0
        self.mtu = PathMtu(highest, self.now)
        self.carries = carries
        self.loss = loss
        self.chance = random.Random(seed)
        self.sent: list[int] = []

    def go_on(self, seconds: float) -> PathMtu:
        """Let time pass, and carry the probes that are due meanwhile."""
        until = self.now + seconds
        while self.mtu.deadline <= until:
            self.now = max(self.now, self.mtu.deadline)
            probe = self.mtu.probe(self.now)
            if probe is None:
                continue
            self.sent.append(probe.size)
            if probe.size <= self.carries and self.chance.random() >= self.loss:
                self.now += 0.04
                self.mtu.answered(probe.token, self.now)
        self.now = until
        return self.mtu


@pytest.mark.parametrize("highest", [1280, 1500, 9000, HIGHEST])
def test_the_first_probe_finds_what_the_first_hop_carries(highest: int) -> None:
    path = Path(highest, highest)
    assert path.go_on(1).confirmed == highest
    assert path.sent == [highest]


@given(st.integers(FLOOR, 9000), st.integers(FLOOR, 9000))
@settings(max_examples=200, deadline=None)
def test_the_longest_is_found_within_a_minute(highest: int, carries: int) -> None:
    found = Path(highest, carries).go_on(60).confirmed
    longest = min(highest, carries)
    assert longest - STEP <= found <= longest


@given(st.integers(FLOOR, 1500), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_it_is_found_in_spite_of_loss(carries: int, seed: int) -> None:
    found = Path(1500, carries, 0.02, seed).go_on(120).confirmed
    assert carries - 100 <= found <= carries


def test_longer_than_a_record_is_not_tried() -> None:
    path = Path(65535, 65535)
    assert path.go_on(1).confirmed == HIGHEST


def test_a_path_that_came_to_carry_less_is_noticed() -> None:
    path = Path(1500, 1500)
    path.go_on(60)
    path.carries = 1400
    assert 1400 - STEP <= path.go_on(CONFIRM + 40).confirmed <= 1400


def test_where_somebody_says_so_it_is_noticed_at_once() -> None:
    path = Path(1500, 1500)
    path.go_on(60)
    path.carries = 1400
    path.mtu.doubt(path.now)
    assert path.go_on(10).confirmed <= 1400


def test_what_somebody_says_is_not_believed() -> None:
    path = Path(1500, 1500)
    path.go_on(60)
    path.mtu.doubt(path.now)
    assert path.go_on(10).confirmed == 1500


def test_an_outage_says_nothing_of_sizes() -> None:
    path = Path(1500, 1500)
    path.go_on(60)
    path.carries = 0
    assert path.go_on(120).confirmed == 1500
    path.carries = 1500
    assert path.go_on(60).confirmed == 1500
    assert path.sent[-1] == 1500


def test_longer_ones_are_tried_again_in_time() -> None:
    path = Path(1500, 1400)
    path.go_on(60)
    path.carries = 1500
    assert path.go_on(60).confirmed <= 1400
    assert path.go_on(RAISE + CONFIRM).confirmed == 1500


def test_what_this_machine_refuses_is_too_long_at_once() -> None:
    path = Path(1500, 1450)
    path.go_on(60)
    assert path.mtu.refused(1420, path.now)
    assert path.mtu.confirmed == BASE
    assert 1420 - STEP <= path.go_on(10).confirmed < 1420


def test_a_probe_is_sent_no_more_often_than_its_tries() -> None:
    path = Path(1500, 0)
    path.go_on(60)
    assert len(path.sent) <= 3 * TRIES * 60 / 5


def test_a_token_that_was_not_sent_is_no_answer() -> None:
    mtu = PathMtu(1500, 0.0)
    assert mtu.probe(0.0) is not None
    assert not mtu.answered(bytes(8), 0.1)
    assert mtu.confirmed == BASE


@given(st.lists(st.tuples(st.sampled_from("padr"), st.integers(0, 2000), st.floats(0, 100)), max_size=60))
@settings(max_examples=200)
def test_whatever_happens_it_stays_within_its_bounds(events: list[tuple[str, int, float]]) -> None:
    mtu, now, tokens = PathMtu(1500, 0.0), 0.0, [bytes(8)]
    for what, number, seconds in events:
        now += seconds
        if what == "p" and (probe := mtu.probe(now)) is not None:
            assert FLOOR <= probe.size <= 1500
            tokens.append(probe.token)
        elif what == "a":
            mtu.answered(tokens[number % len(tokens)], now)
        elif what == "d":
            mtu.doubt(now)
        elif what == "r":
            mtu.refused(number, now)
        assert FLOOR <= mtu.confirmed <= 1500
        assert mtu.deadline < now + CONFIRM + 1


def test_what_the_peer_can_send_is_tried_at_once() -> None:
    path = Path(1500, 1400)
    assert path.go_on(0.5).confirmed == BASE
    path.mtu.suggest(1400, path.now)
    assert path.go_on(0.1).confirmed == 1400
    path.mtu.suggest(1300, path.now)
    path.mtu.suggest(9000, path.now)
    assert 1400 - STEP <= path.go_on(60).confirmed <= 1400
