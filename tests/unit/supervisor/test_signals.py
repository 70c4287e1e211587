"""The signals that are passed on, and those that reach a whole group of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from culvert.privileges import ExitStatus

from .small_daemon import SmallDaemon

Daemon = Callable[..., SmallDaemon]


def test_usr2_lists_the_connections(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    running.send(signal.SIGUSR2)
    running.expect_all("got list")
    assert running.stop() == ExitStatus.OK


def test_usr1_reopens_the_log_everywhere(daemon: Daemon, tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    running = daemon(log_file=path)
    running.expect("bound to")
    path.rename(moved)
    running.send(signal.SIGUSR1)
    running.expect_all("the log is new")
    assert running.stop() == ExitStatus.OK
    assert "bound to" in moved.read_text()
    new = path.read_text()
    assert new.count("the log is new") == 2
    assert "Terminated" in new
    assert "the log is new" not in moved.read_text()


def test_a_log_that_cannot_be_reopened_is_told_and_the_old_one_used(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    running = daemon(log_file=folder / "log")
    running.expect("bound to")
    folder.rename(tmp_path / "moved")
    running.send(signal.SIGUSR1)
    running.expect(r"LOG3\[main\]: Cannot reopen the log file .*logs/log: No such file or directory")
    running.expect_all("the log is new")
    assert running.stop() == ExitStatus.OK
    assert "Terminated" in (tmp_path / "moved" / "log").read_text()


def test_many_signals_at_once_are_not_lost(daemon: Daemon) -> None:
    running = daemon(workers=1)
    running.expect("bound to")
    running.send(signal.SIGSTOP)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        running.send(number)
    running.send(signal.SIGCONT)
    running.expect(r"\[g1w0\]: got list")
    running.expect(r"\[g1w0\]: the log is new")
    running.expect(r"\[g2\]: bound to")
    assert running.stop() == ExitStatus.OK


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2], ids=lambda n: n.name)
def test_a_signal_to_the_whole_group_costs_no_worker(daemon: Daemon, number: signal.Signals) -> None:
    running = daemon()
    running.expect("bound to")
    os.killpg(running.pid, number)
    running.expect(f"Received {number.name}")
    running.expect_all("got (drain|list|log)")
    assert running.stop() == ExitStatus.OK
    assert running.count("was killed") == 0


def test_an_interrupt_from_the_terminal_lets_the_workers_stop_by_themselves(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    os.killpg(running.pid, signal.SIGINT)
    running.expect_all("got stop")
    assert running.wait() == ExitStatus.OK


def test_a_worker_leaves_sigterm_to_the_supervisor(daemon: Daemon) -> None:
    running = daemon()
    first, _ = running.pids(1)
    running.expect("bound to")
    os.kill(first, signal.SIGTERM)
    os.kill(first, signal.SIGKILL)
    running.expect("was killed by SIGKILL")
    running.expect(r"\[g1w0\]: pid")
    assert running.stop() == ExitStatus.OK


_PIPE = """
import os, signal
from culvert.supervisor.signals import SignalPipe
pipe = SignalPipe([signal.SIGUSR1, signal.SIGTERM], [signal.SIGTERM])
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
    os.kill(os.getpid(), number)
print(pipe.read() == [signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM])
"""


def test_those_that_wait_together_are_one_but_for_those_that_count() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PIPE], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout == "True\n"
