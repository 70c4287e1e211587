"""Refused connections are all counted, and the log is told once a second for each reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.config import Debug
from culvert.log import Channel, FileSink, Log
from culvert.metrics import Counters
from culvert.refusals import Refusals


class Door:
    """Refusals that write to a file, under a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.counters = Counters()
        self._path = folder / "log"
        self.log = Log([FileSink(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), None)])
        self.refuse = Refusals(self.channel("s"), self.counters.refused, lambda: self.now).refuse

    def channel(self, ident: str) -> Channel:
        return self.log.channel(Debug(7, 3), ident)

    def lines(self) -> list[str]:
        return [line[20:] for line in self._path.read_text().splitlines()]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door(tmp_path)
    yield door
    door.log.close()


def test_the_first_refusal_is_logged_at_once(door: Door) -> None:
    door.refuse("denied", "no")
    assert door.lines() == ["LOG4[s]: no"]


def test_within_a_second_the_same_reason_is_counted_and_not_logged(door: Door) -> None:
    for _ in range(5):
        door.refuse("denied", "no")
        door.now += 0.19
    assert len(door.lines()) == 1
    assert str(door.counters.refused) == "5 denied"


def test_the_next_line_tells_what_was_left_out(door: Door) -> None:
    for _ in range(3):
        door.refuse("denied", "no")
    door.now += 1.0
    door.refuse("denied", "no again")
    door.now += 1.0
    door.refuse("denied", "and again")
    assert door.lines()[1:] == [
        "LOG4[s]: no again (2 more like it since the last such line)",
        "LOG4[s]: and again",
    ]


def test_each_reason_has_a_line_of_its_own(door: Door) -> None:
    door.refuse("denied", "no")
    door.refuse("full", "no room")
    door.refuse("denied", "no")
    assert door.lines() == ["LOG4[s]: no", "LOG4[s]: no room"]


def test_a_connection_may_be_refused_under_its_own_identity(door: Door) -> None:
    door.refuse("ident", "no", door.channel("17"))
    assert door.lines() == ["LOG4[17]: no"]


def test_the_counters_name_the_reasons(door: Door) -> None:
    for reason in ("full", "denied", "full"):
        door.refuse(reason, "no")
    assert "refused: 1 denied, 2 full" in str(door.counters)
