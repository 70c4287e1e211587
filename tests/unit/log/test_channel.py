"""Levels that change while channels are in use, and lines that are held back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.config.model import Debug
from culvert.log import FileSink, Level, Log

NOTICE = Debug(5, 3)


class Written:
    """A log, and what it holds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self.log = Log([FileSink(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), None)])

    def lines(self) -> list[str]:
        """The lines without their time."""
        return [line[20:] for line in self._path.read_text().splitlines()]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    written = Written(tmp_path)
    yield written
    written.log.close()


class TestLevels:
    def test_a_service_and_its_open_connections_change_alone(self, written: Written) -> None:
        one, other = (written.log.channel(NOTICE, name, name) for name in ("one", "other"))
        connection = one.named("7")
        written.log.set_level(7, "one")
        for channel in (one, connection, other, written.log.channel(NOTICE, "main")):
            channel.debug("text")
        assert written.lines() == ["LOG7[one]: text", "LOG7[7]: text"]

    def test_all_change_where_no_service_is_named(self, written: Written) -> None:
        early = written.log.channel(NOTICE, "one", "one")
        written.log.set_level(3)
        late = written.log.channel(NOTICE, "other", "other")
        for channel in (early, late, written.log.channel(NOTICE, "main")):
            channel.notice("text")
        assert written.lines() == []

    def test_what_is_changed_before_a_channel_is_made_counts(self, written: Written) -> None:
        written.log.set_level(7, "one")
        assert written.log.channel(NOTICE, "one", "one").enabled(Level.DEBUG)


class TestHolding:
    def test_lines_come_when_they_are_released_in_order(self, written: Written) -> None:
        channel = written.log.channel(NOTICE, "1")
        channel.hold()
        channel.notice("first")
        assert written.lines() == []
        channel.release()
        channel.notice("second")
        assert written.lines() == ["LOG5[1]: first", "LOG5[1]: second"]

    def test_a_warning_brings_them(self, written: Written) -> None:
        channel = written.log.channel(NOTICE, "1")
        channel.hold()
        channel.notice("first")
        channel.warning("bad")
        assert written.lines() == ["LOG5[1]: first", "LOG4[1]: bad"]

    @pytest.mark.parametrize(("level", "expected"), [(5, []), (7, ["LOG7[1]: first"])])
    def test_they_can_be_made_lines_for_debugging(
        self, written: Written, level: int, expected: list[str]
    ) -> None:
        channel = written.log.channel(Debug(level, 3), "1")
        channel.hold()
        channel.notice("first")
        channel.release(Level.DEBUG)
        assert written.lines() == expected

    def test_too_many_are_not_held(self, written: Written) -> None:
        channel = written.log.channel(NOTICE, "1")
        channel.hold()
        for number in range(100):
            channel.notice(f"{number}")
        assert written.lines() == [f"LOG5[1]: {number}" for number in range(100)]
