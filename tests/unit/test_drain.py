"""What is said of the daemon's end, and the status that it gives."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.config.model import Debug
from culvert.drain import Drain
from culvert.log import Channel, FileSink, Log
from culvert.privileges import ExitStatus


class Written:
    """A log, and the lines in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Log([FileSink(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), None)])

    @property
    def channel(self) -> Channel:
        """Where to write."""
        return self._log.channel(Debug(7, 3), "main")

    def lines(self) -> list[str]:
        """What was written, without the time."""
        return [line.split("]: ", 1)[1] for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        """Close the file."""
        self._log.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Written]:
    """A log of this test."""
    written = Written(tmp_path / "log")
    yield written
    written.close()


def test_all_that_was_waited_for_has_finished(log: Written) -> None:
    drain = Drain(log.channel, 30)
    assert drain.waits
    assert drain.deadline == pytest.approx(time.monotonic() + 30, abs=5)
    drain.waiting(3)
    drain.waiting(1)
    drain.cut(0)
    assert drain.conclude() is ExitStatus.OK
    first, last = log.lines()
    assert re.fullmatch(
        r"Stopping: waiting for 3 connection\(s\) to finish, at most 30 s, until \d\d:\d\d:\d\d", first
    )
    assert last == "All connections have finished"


def test_nothing_was_open(log: Written) -> None:
    drain = Drain(log.channel, 30)
    drain.waiting(0)
    assert drain.conclude() is ExitStatus.OK
    assert log.lines() == ["Stopping: no connection is open"]


@pytest.mark.parametrize("how", ["expire", "force"])
def test_what_was_cut_short_is_told_by_the_status(log: Written, how: str) -> None:
    drain = Drain(log.channel, 30)
    drain.waiting(2)
    getattr(drain, how)()
    assert not drain.waits
    assert drain.deadline == math.inf
    drain.cut(1)
    drain.cut(1)
    assert drain.conclude() is ExitStatus.CUT_SHORT
    reasons = {"expire": "drainTimeout exceeded", "force": "Told to stop once more"}
    assert log.lines()[1:] == [
        f"{reasons[how]}: ending the connections that are left",
        "2 connection(s) were ended before they had finished",
    ]


def test_a_second_signal_after_the_time_says_nothing_more(log: Written) -> None:
    drain = Drain(log.channel, 30)
    drain.expire()
    drain.force()
    assert len(log.lines()) == 1


def test_without_patience_nothing_is_cut_short(log: Written) -> None:
    drain = Drain(log.channel, 0)
    assert not drain.waits
    drain.force()
    drain.cut(5)
    assert drain.conclude() is ExitStatus.OK
    assert log.lines() == []
