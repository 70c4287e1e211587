"""The life of the workers: start, replacement, stop."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable

import pytest

from culvert.privileges import ExitStatus

from .small_daemon import QUICK, SmallDaemon

Daemon = Callable[..., SmallDaemon]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda n: n.name)
def test_a_signal_stops_all_workers(daemon: Daemon, number: signal.Signals) -> None:
    running = daemon()
    running.expect("bound to")
    running.send(number)
    running.expect_all("got stop")
    assert running.wait() == ExitStatus.OK
    running.expect(rf"LOG5\[main\]: Received {number.name}")
    running.expect("retired, successor none")
    running.expect(r"LOG5\[main\]: Terminated")


def test_a_start_is_announced_once_after_all_are_ready(daemon: Daemon) -> None:
    running = daemon("hesitant")
    pids = running.pids(1)
    assert len(set(pids)) == 2
    assert running.count("bound to") == 0
    running.open_gate()
    running.expect("bound to")
    running.stop()
    assert running.count("bound to") == 1


def test_a_worker_that_does_not_stop_is_killed(daemon: Daemon) -> None:
    running = daemon("stubborn", timing=dataclasses.replace(QUICK, stop=0.1))
    running.expect("bound to")
    assert running.stop() == ExitStatus.OK
    running.expect_all("did not stop in time and is killed")
    running.expect_all("got stop")


def test_a_killed_worker_is_replaced_and_the_others_stay(daemon: Daemon) -> None:
    running = daemon()
    first, second = running.pids(1)
    running.expect("bound to")
    os.kill(first, signal.SIGKILL)
    running.expect(rf"LOG3\[main\]: Worker 0 \(pid {first}\) was killed by SIGKILL")
    running.expect(r"Worker 0 is replaced in 0\.02 s")
    replacement = int(running.expect(r"\[g1w0\]: pid (\d+)")[1])
    assert replacement not in (first, second)
    assert running.stop() == ExitStatus.OK
    running.expect_all("got stop")
    running.expect(rf"\(pid {replacement}\) ended with status 0")
    running.expect(rf"\(pid {second}\) ended with status 0")
    assert running.count("bound to") == 1


def pause_after_a_death(running: SmallDaemon) -> str:
    """Let the one fragile worker end; how long its replacement is held back."""
    running.expect(r"\[g1w0\]: pid")
    running.send(signal.SIGUSR2)
    running.expect(r"LOG3\[main\]: Worker 0 \(pid \d+\) ended with status 7")
    return running.expect(r"replaced in (\S+) s")[1]


def test_deaths_in_a_row_are_answered_ever_more_slowly(daemon: Daemon) -> None:
    running = daemon("fragile", workers=1)
    running.expect("bound to")
    assert [pause_after_a_death(running) for _ in range(4)] == ["0.02", "0.04", "0.08", "0.08"]
    assert running.stop() == ExitStatus.OK


def test_a_worker_that_had_settled_is_replaced_soon(daemon: Daemon) -> None:
    running = daemon("fragile", workers=1, timing=dataclasses.replace(QUICK, settled=0.0))
    running.expect("bound to")
    assert {pause_after_a_death(running) for _ in range(3)} == {"0.02"}
    assert running.stop() == ExitStatus.OK


def test_workers_notice_the_death_of_the_supervisor(daemon: Daemon) -> None:
    running = daemon(workers=3)
    running.expect("bound to")
    running.send(signal.SIGKILL)
    running.expect_all("got the end")
    assert running.wait() == -signal.SIGKILL


def test_a_bad_configuration_is_the_callers_to_tell(daemon: Daemon) -> None:
    running = daemon("bad")
    assert running.wait() == 98
    running.expect('told to the caller: plan:1: "bad": unknown option')


def test_a_start_without_a_ready_worker_fails(daemon: Daemon) -> None:
    running = daemon("silent", timing=dataclasses.replace(QUICK, ready=0.1))
    assert running.wait() == ExitStatus.FAILED_START
    running.expect(r"LOG3\[main\]: Worker \d \(pid \d+\) did not get ready in time and is killed")
    running.expect(r"LOG3\[main\]: .* was killed by SIGKILL before all workers were ready")
    running.expect("retired, successor none")
    assert running.count("bound to") == 0


def test_what_only_a_worker_finds_wrong_in_the_configuration_fails_the_start(daemon: Daemon) -> None:
    running = daemon("refuses")
    assert running.wait() == ExitStatus.CONFIGURATION
    running.expect(r'LOG3\[main\]: plan:7: "chroot = /none": the jail has no door')
    assert running.count("Traceback") == 0


def test_a_fault_of_a_worker_is_logged_with_its_traceback(daemon: Daemon) -> None:
    running = daemon("faulty", workers=1)
    assert running.wait() == ExitStatus.FAILED_START
    running.expect(r"LOG2\[main\]: Worker 0 failed by a fault of culvert itself")
    running.expect(r"LOG2\[main\]: Traceback")
    running.expect(r"LOG2\[main\]: ValueError: not as planned")
    running.expect(f"ended with status {ExitStatus.CRASH:d} before all workers were ready")


def test_a_stop_during_the_start_is_obeyed(daemon: Daemon) -> None:
    running = daemon("silent")
    running.pids(1)
    assert running.stop() == ExitStatus.OK
    running.expect_all("got stop")
    running.expect("retired, successor none")
