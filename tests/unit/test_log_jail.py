"""Where the log file is opened: in a jail that others write to, on a pipe, on what is no file at all."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.config.model import Foreground, GlobalOptions, LogMode
from culvert.errors import ConfigurationError, Location
from culvert.log import Log, open_log

from .forked import in_child
from .options import DEBUG, OPTIONS

LINE = Location("stunnel.conf", 2, "output = /run/log")
JAILED = dataclasses.replace(OPTIONS, output="/run/log", locations={"output": LINE})


@pytest.fixture
def jail(tmp_path: Path) -> Path:
    """A jail, beside a folder that it must not lead to."""
    (tmp_path / "jail" / "run").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    return tmp_path / "jail"


@pytest.fixture
def options(jail: Path) -> GlobalOptions:
    """A log at /run/log of the jail."""
    return dataclasses.replace(JAILED, chroot=str(jail))


@pytest.fixture
def log(options: GlobalOptions) -> Iterator[Log]:
    """The open log."""
    log = open_log(options)
    yield log
    log.close()


def say(log: Log, text: str) -> None:
    log.channel(DEBUG, "main").notice(text)


def refusal(options: GlobalOptions) -> str:
    """What is said where the log cannot be opened."""
    with pytest.raises(ConfigurationError) as failure:
        open_log(options)
    (finding,) = failure.value.diagnostics
    assert finding.location == LINE
    return finding.message


class TestInAJail:
    def test_it_is_made_inside_for_owner_and_group(self, log: Log, jail: Path) -> None:
        say(log, "a line")
        assert (jail / "run" / "log").read_text().endswith(": a line\n")
        assert stat.S_IMODE((jail / "run" / "log").stat().st_mode) & 0o137 == 0

    @pytest.mark.parametrize("mode", LogMode)
    def test_a_link_is_not_opened(
        self, options: GlobalOptions, jail: Path, tmp_path: Path, mode: LogMode
    ) -> None:
        (tmp_path / "victim" / "file").write_text("kept")
        (jail / "run" / "log").symlink_to(tmp_path / "victim" / "file")
        said = refusal(dataclasses.replace(options, log=mode))
        assert said.startswith(f"Cannot open the log file {jail}/run/log: 'log' is a symbolic link, ")
        assert (tmp_path / "victim" / "file").read_text() == "kept"

    def test_a_linked_folder_is_not_entered(self, options: GlobalOptions, jail: Path, tmp_path: Path) -> None:
        (jail / "run").rmdir()
        (jail / "run").symlink_to(tmp_path / "victim")
        assert "'run' is a symbolic link" in refusal(options)
        assert not any((tmp_path / "victim").iterdir())

    def test_a_link_is_not_followed_when_it_is_reopened(self, log: Log, jail: Path, tmp_path: Path) -> None:
        (jail / "run" / "log").rename(jail / "run" / "old")
        (jail / "run" / "log").symlink_to(tmp_path / "victim" / "cron")
        (failure,) = log.reopen()
        assert failure.startswith(f"Cannot reopen the log file {jail}/run/log: 'log' is a symbolic link, ")
        say(log, "to the old one")
        assert not any((tmp_path / "victim").iterdir())
        assert "to the old one" in (jail / "run" / "old").read_text()

    def test_it_is_reopened_when_it_was_moved_away(self, log: Log, jail: Path) -> None:
        (jail / "run" / "log").rename(jail / "run" / "old")
        assert log.reopen() == []
        say(log, "to the new one")
        assert "to the new one" in (jail / "run" / "log").read_text()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
    def test_it_is_reopened_from_inside(self, log: Log, jail: Path) -> None:
        def confined() -> None:
            os.chroot(jail)
            log.enter_jail()
            os.rename("/run/log", "/run/old")  # noqa: PTH104
            assert log.reopen() == []
            say(log, "from inside")

        assert in_child(confined) == (0, "")
        assert "from inside" in (jail / "run" / "log").read_text()

    def test_the_standard_streams_are_still_the_callers(
        self, options: GlobalOptions, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for stream in ("/dev/stdout", "/dev/stderr"):
            log = open_log(dataclasses.replace(options, output=stream))
            log.enter_jail()
            assert log.reopen() == []
            say(log, f"to {stream}")
            log.close()
        captured = capfd.readouterr()
        assert captured.out.endswith("to /dev/stdout\n")
        assert captured.err.endswith("to /dev/stderr\n")


class TestPipe:
    def test_one_without_a_reader_is_refused_at_once(self, options: GlobalOptions, jail: Path) -> None:
        os.mkfifo(jail / "run" / "log")
        assert refusal(options) == f"Cannot open the log file {jail}/run/log: No such device or address"

    def test_that_replaced_the_file_is_not_waited_for(self, log: Log, jail: Path) -> None:
        (jail / "run" / "log").unlink()
        os.mkfifo(jail / "run" / "log")
        assert log.reopen() == [f"Cannot reopen the log file {jail}/run/log: No such device or address"]

    def test_a_stalled_reader_costs_lines_and_no_time(self, options: GlobalOptions, jail: Path) -> None:
        os.mkfifo(jail / "run" / "log")
        reader = os.open(jail / "run" / "log", os.O_RDONLY | os.O_NONBLOCK)
        log = open_log(options)
        for _ in range(2000):
            say(log, "x" * 100)
        while True:
            try:
                os.read(reader, 1 << 16)
            except BlockingIOError:
                break
        say(log, "after the stall")
        received = os.read(reader, 1 << 16).decode()
        os.close(reader)
        log.close()
        assert "after the stall" in received
        assert "could not be written" in received


def test_a_failed_output_leaves_no_descriptor(options: GlobalOptions, jail: Path) -> None:
    (jail / "run").rmdir()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    refusal(dataclasses.replace(options, foreground=Foreground.YES, syslog=True))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
