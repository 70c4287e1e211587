"""The process behind a pid file: found only where it is a daemon's first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.cli.daemon.errors import PidFileError
from culvert.cli.daemon.process import DaemonProcess, read_pid
from culvert.jail import Place

PATIENCE = 20.0

_DAEMON = """
import os, sys
from culvert.idents import ConnectionNumbers
numbers = ConnectionNumbers()
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.read()
"""
_STRANGER = "import sys; print(0, flush=True); sys.stdin.read()"


class Running:
    """A process that runs a program, which has said the number of its child, until the end of the context."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.child = int(self._process.stdout.readline())

    def end(self) -> int:
        """Its standard input ends, and so does it, if it lives; its exit status."""
        self._process.communicate(timeout=PATIENCE)
        return self._process.returncode


@pytest.fixture
def daemon() -> Iterator[Running]:
    running = Running(_DAEMON)
    yield running
    running.end()


@pytest.fixture
def stranger() -> Iterator[Running]:
    running = Running(_STRANGER)
    yield running
    running.end()


def test_a_daemon_is_found_and_told(daemon: Running) -> None:
    found = DaemonProcess.find(daemon.pid)
    assert found is not None
    with found:
        assert not found.wait(0)
        assert found.send(signal.SIGTERM)
        assert found.wait(PATIENCE)
        assert daemon.end() == -signal.SIGTERM
        assert not found.send(signal.SIGTERM)


def test_its_worker_is_none(daemon: Running) -> None:
    assert DaemonProcess.find(daemon.child) is None


def test_a_stranger_is_none(stranger: Running) -> None:
    assert DaemonProcess.find(stranger.pid) is None


def test_a_number_that_is_free_again_is_none(stranger: Running) -> None:
    stranger.end()
    assert DaemonProcess.find(stranger.pid) is None


def test_a_pid_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("4711\n")
    assert read_pid(Place(None, str(tmp_path / "pid"))) == 4711
    assert read_pid(Place(None, str(tmp_path / "none"))) is None


@pytest.mark.parametrize("content", ["", "x", "-1", "0", "1 2", "9" * 20, "1" + " " * 100, "\u0661"])
def test_what_is_no_number_is_said(tmp_path: Path, content: str) -> None:
    (tmp_path / "pid").write_text(content)
    with pytest.raises(PidFileError, match="holds no process's number"):
        read_pid(Place(None, str(tmp_path / "pid")))


def test_a_link_in_a_jail_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("4711\n")
    jail = tmp_path / "jail"
    jail.mkdir()
    (jail / "pid").symlink_to(tmp_path / "secret")
    with pytest.raises(PidFileError, match="symbolic link"):
        read_pid(Place(str(jail), "/pid"))


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    with pytest.raises(PidFileError):
        read_pid(Place(None, str(tmp_path / "pid")))
