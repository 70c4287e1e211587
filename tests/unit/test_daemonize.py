"""Becoming a daemon: what is left behind, what is kept, and what the launcher learns."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from culvert import privileges
from culvert.privileges import StartReport

from .forked import PATIENCE, bound_life, in_child, read_to_end

SILENT = 9


class Launch:
    """A launcher, and the daemon that it becomes; `daemon` is what runs in it."""

    def __init__(self, daemon: Callable[[StartReport, Launch], None]) -> None:
        self._life, writer = os.pipe()
        self._waiting, self._gate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._gate)
                bound_life()
                report = privileges.daemonize(SILENT)
                bound_life()  # an alarm is not inherited
                daemon(report, self)
            finally:
                os._exit(77)  # the launcher never gets here, and nobody sees the daemon's status
        os.close(writer)
        os.close(self._waiting)

    def await_gate(self) -> None:
        """In the daemon: wait until the test lets it go on."""
        os.read(self._waiting, 1)

    def goes_on(self, seconds: float) -> bool:
        handle = os.pidfd_open(self.pid)
        ended = select.select([handle], [], [], seconds)[0]
        os.close(handle)
        return not ended

    def status(self) -> int:
        """The launcher's exit status, after the daemon has ended too."""
        os.close(self._gate)
        assert not self.goes_on(PATIENCE)
        read_to_end(self._life)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("status", [0, 3, 70])
def test_the_launcher_ends_with_the_reported_status(capfd: pytest.CaptureFixture[str], status: int) -> None:
    assert Launch(lambda report, _: report.send(status)).status() == status
    assert capfd.readouterr() == ("", "")


def test_the_launcher_tells_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    assert Launch(lambda report, _: report.send(1, "no pid\nfile")).status() == 1
    assert capfd.readouterr() == ("", "[!] no pid\n[!] file\n")


def test_a_reason_beyond_all_bounds_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    assert Launch(lambda report, _: report.send(1, "x" * 1_000_000)).status() == 1
    assert capfd.readouterr().err == "[!] " + "x" * (privileges.REPORT_LIMIT - 1) + "\n"


def test_only_the_first_report_counts() -> None:
    def twice(report: StartReport, launch: Launch) -> None:
        report.send(0)
        report.send(5)

    assert Launch(twice).status() == 0


def test_a_silent_end_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert Launch(lambda report, _: None).status() == SILENT
    assert capfd.readouterr().err == "[!] The daemon ended before it was ready\n"


def test_the_launcher_waits_for_the_report() -> None:
    def slow(report: StartReport, launch: Launch) -> None:
        launch.await_gate()
        report.send(4)

    launch = Launch(slow)
    assert launch.goes_on(0.2)
    assert launch.status() == 4


def test_the_daemon_outlives_a_launcher_that_is_interrupted(tmp_path: Path) -> None:
    detached, release = os.pipe()

    def slow(report: StartReport, launch: Launch) -> None:
        os.write(release, b"x")
        launch.await_gate()
        report.send(0)
        (tmp_path / "alive").touch()

    launch = Launch(slow)
    assert select.select([detached], [], [], PATIENCE)[0]
    os.kill(launch.pid, signal.SIGINT)
    assert launch.status() == -signal.SIGINT
    assert (tmp_path / "alive").exists()
    os.close(detached)
    os.close(release)


def test_the_daemon_has_left_everything_but_its_descriptors(tmp_path: Path) -> None:
    kept = os.open(tmp_path / "kept", os.O_RDWR | os.O_CREAT)

    def check(report: StartReport, launch: Launch) -> None:
        assert os.getpid() not in (os.getsid(0), os.getpgrp())
        assert Path.cwd() == Path("/")
        assert os.umask(0) == privileges.DAEMON_UMASK
        for fd in (0, 1, 2):
            assert Path(f"/proc/self/fd/{fd}").readlink() == Path(os.devnull)
            assert os.get_inheritable(fd)
        os.write(kept, b"kept")
        report.send(0)

    assert Launch(check).status() == 0
    os.close(kept)
    assert (tmp_path / "kept").read_text() == "kept"


def test_descriptors_that_were_missing_at_the_start_are_filled() -> None:
    def start_without_input_and_errors() -> None:
        os.close(0)
        os.close(2)
        privileges.fill_standard_descriptors()
        assert os.open("/", os.O_RDONLY) > 2
        for fd in (0, 2):
            assert Path(f"/proc/self/fd/{fd}").readlink() == Path(os.devnull)
            assert not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC

    assert in_child(start_without_input_and_errors) == (0, "")


def test_descriptors_that_are_there_are_left_alone() -> None:
    def start() -> None:
        lowest_free = os.dup(0)
        os.close(lowest_free)
        before = [os.fstat(fd) for fd in range(3)]
        privileges.fill_standard_descriptors()
        assert [os.fstat(fd) for fd in range(3)] == before
        assert os.dup(0) == lowest_free

    assert in_child(start) == (0, "")
