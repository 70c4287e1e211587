"""The end of the daemon and of workers from before a reload: what is told to whom, and when."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable

import pytest

from culvert.privileges import ExitStatus

from ..options import OPTIONS
from .small_daemon import QUICK, SmallDaemon

Daemon = Callable[..., SmallDaemon]

PATIENT = dataclasses.replace(OPTIONS, drain_timeout=60.0)
HASTY = dataclasses.replace(OPTIONS, drain_timeout=0.05)


def test_workers_finish_and_the_status_is_good(daemon: Daemon) -> None:
    running = daemon(options=PATIENT)
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect_all("got finish")
    running.expect(r"Stopping: waiting for 6 connection\(s\) to finish, at most 60 s")
    running.expect("listens no more")
    running.open_gate()
    assert running.wait() == ExitStatus.OK
    running.expect("All connections have finished")
    assert running.count("got stop") == 0


def test_it_may_last_longer_than_the_system_can_wait(daemon: Daemon) -> None:
    running = daemon(options=dataclasses.replace(OPTIONS, drain_timeout=2.0**31 - 1))
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect("Stopping: waiting for 6")
    running.open_gate()
    assert running.wait() == ExitStatus.OK


def test_the_time_is_over(daemon: Daemon) -> None:
    running = daemon(options=HASTY)
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect("drainTimeout exceeded")
    running.expect_all("got stop")
    assert running.wait() == ExitStatus.CUT_SHORT
    running.expect(r"4 connection\(s\) were ended before they had finished")


def test_a_second_signal_ends_it(daemon: Daemon) -> None:
    running = daemon(options=PATIENT)
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect_all("got finish")
    running.send(signal.SIGINT)
    running.expect("Told to stop once more")
    running.expect_all("got stop")
    assert running.wait() == ExitStatus.CUT_SHORT


def test_a_worker_that_does_not_stop_is_killed(daemon: Daemon) -> None:
    running = daemon("stubborn", options=HASTY, timing=dataclasses.replace(QUICK, stop=0.1))
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect_all("did not stop in time and is killed")
    assert running.wait() == ExitStatus.CUT_SHORT


def test_a_number_that_is_none_counts_nothing(daemon: Daemon) -> None:
    running = daemon("liar", options=PATIENT)
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect("Stopping: no connection is open")
    running.open_gate()
    assert running.wait() == ExitStatus.OK


def test_a_worker_that_dies_meanwhile_is_not_replaced(daemon: Daemon) -> None:
    running = daemon(options=PATIENT)
    first, _ = running.pids(1)
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect("Stopping: waiting")
    os.kill(first, signal.SIGKILL)
    running.expect("was killed by SIGKILL")
    running.open_gate()
    assert running.wait() == ExitStatus.CUT_SHORT
    assert running.count("replaced") == 0


def test_a_reload_during_it_is_refused_without_a_word(daemon: Daemon) -> None:
    running = daemon(options=PATIENT)
    running.expect("bound to")
    running.send(signal.SIGTERM)
    running.expect_all("got finish")
    running.reload("good")
    running.expect("Received SIGHUP")
    running.open_gate()
    assert running.wait() == ExitStatus.OK
    assert running.count(r"\[g2") == 0


def test_workers_of_before_a_reload_finish_with_the_others(daemon: Daemon) -> None:
    running = daemon(options=PATIENT)
    running.expect("bound to")
    running.reload("good")
    running.expect(r"\[g2\]: bound to")
    running.expect_all("got drain")
    running.send(signal.SIGTERM)
    for _ in range(4):
        running.expect("got finish")
    running.expect(r"waiting for 12 connection\(s\)")
    running.open_gate()
    assert running.wait() == ExitStatus.OK


@pytest.mark.parametrize(("plan", "stopped"), [("good reload_drain_timeout=0.05", True), ("good", False)])
def test_the_new_configuration_says_how_long_old_workers_stay(
    daemon: Daemon, plan: str, stopped: bool
) -> None:
    running = daemon()
    running.expect("bound to")
    running.reload(plan)
    running.expect_all(r"\[g1w\d\]: got drain")
    if stopped:
        running.expect_all(r"reloadDrainTimeout exceeded: Worker \d \(pid \d+\) is told to stop")
        running.expect_all(r"\[g1w\d\]: got stop")
    else:
        running.expect(r"\[g2\]: bound to")
        running.send(signal.SIGUSR2)
        for _ in range(4):
            running.expect("got list")
        assert running.count(r"\[g1w\d\]: got stop") == 0
    assert running.stop() == ExitStatus.OK
