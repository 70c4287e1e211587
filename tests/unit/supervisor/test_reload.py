"""SIGHUP: prepare, prove, commit; or leave all as it was."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import socket
from collections.abc import Callable

from culvert.privileges import ExitStatus

from .small_daemon import QUICK, SmallDaemon

Daemon = Callable[..., SmallDaemon]


def is_open(port: int) -> bool:
    with socket.socket() as client:
        error = client.connect_ex(("127.0.0.1", port))
    assert error in (0, errno.ECONNREFUSED)
    return error == 0


def test_a_good_one_takes_over_and_the_old_workers_finish(daemon: Daemon) -> None:
    running = daemon()
    old_port = int(running.expect(r"\[g1\]: bound to (\d+)")[1])
    running.reload("good")
    new_port = int(running.expect(r"\[g2\]: bound to (\d+)")[1])
    running.expect_all(r"\[g1w\d\]: got drain")
    running.expect(r"\[g1\]: retired, successor generation 2")
    running.open_gate()
    running.expect_all(r"LOG6\[main\]: Worker \d \(pid \d+\) ended with status 0")
    assert is_open(new_port)
    assert not is_open(old_port)  # no new worker holds it either
    assert running.stop() == ExitStatus.OK
    running.expect_all(r"\[g2w\d\]: got stop")


def test_a_bad_one_changes_nothing(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    running.reload("bad")
    running.expect(r'LOG3\[main\]: plan:1: "bad": unknown option')
    running.expect(r"LOG3\[main\]: Configuration failed")
    assert running.stop() == ExitStatus.OK
    running.expect_all(r"\[g1w\d\]: got stop")


def test_a_fault_in_loading_changes_nothing(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    running.reload("fault")
    running.expect(r"LOG2\[main\]: ValueError: the plan is beyond me")
    running.expect(r"LOG3\[main\]: Configuration failed")
    assert running.stop() == ExitStatus.OK


def test_one_whose_workers_do_not_get_ready_is_undone(daemon: Daemon) -> None:
    running = daemon(timing=dataclasses.replace(QUICK, ready=1.0))
    running.expect("bound to")
    running.reload("silent")
    running.pids(2)
    running.send(signal.SIGUSR2)  # not deaf while it waits
    running.expect_all(r"\[g1w\d\]: got list")
    running.expect(r"\(pid \d+\) did not get ready in time and is killed")
    running.expect(r"LOG3\[main\]: Worker \d \(pid \d+\) was killed by SIGKILL before all workers were ready")
    running.expect(r"LOG3\[main\]: Configuration failed")
    running.expect(r"\[g2\]: retired, successor generation 1")
    running.expect(r"LOG6\[main\]: Worker \d \(pid \d+\) (was killed by SIGKILL|ended with status 0)$")
    running.reload("good")
    running.expect(r"\[g3\]: bound to")
    assert running.count(r"\[g2\]: bound to") == 0
    assert running.stop() == ExitStatus.OK


def test_one_whose_worker_dies_is_undone(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    running.reload("refuses")
    running.expect("the jail has no door")
    running.expect("ended with status 1 before all workers were ready")
    running.expect("Configuration failed")
    assert running.count("is replaced") == 0
    assert running.stop() == ExitStatus.OK


def test_a_worker_that_dies_during_a_reload_is_replaced(daemon: Daemon) -> None:
    running = daemon()
    first, _ = running.pids(1)
    running.expect("bound to")
    running.reload("hesitant")
    running.pids(2)
    os.kill(first, signal.SIGKILL)
    running.expect(r"\[g1w0\]: pid")
    running.open_gate()
    running.expect(r"\[g2\]: bound to")
    assert running.stop() == ExitStatus.OK


def test_a_draining_worker_is_still_the_supervisors(daemon: Daemon) -> None:
    running = daemon(workers=1)
    (old,) = running.pids(1)
    running.expect("bound to")
    running.reload("good")
    running.expect(r"\[g1w0\]: got drain")
    running.send(signal.SIGUSR2)
    running.expect(r"\[g1w0\]: got list")
    running.expect(r"\[g2w0\]: got list")
    assert running.stop() == ExitStatus.OK
    running.expect(r"\[g1w0\]: got stop")
    running.expect(rf"\(pid {old}\) ended with status 0")


def test_a_draining_worker_that_dies_is_not_replaced(daemon: Daemon) -> None:
    running = daemon(workers=1)
    (old,) = running.pids(1)
    running.expect("bound to")
    running.reload("good")
    running.expect(r"\[g1w0\]: got drain")
    os.kill(old, signal.SIGKILL)
    running.expect(rf"LOG3\[main\]: Worker 0 \(pid {old}\) was killed by SIGKILL")
    assert running.stop() == ExitStatus.OK
    assert running.count("is replaced") == 0


def test_one_asked_for_during_another_is_done_after_it(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    running.reload("hesitant")
    running.pids(2)
    running.reload("good")
    running.expect_all("Received SIGHUP")
    assert running.count("g3") == 0
    running.open_gate()
    running.expect(r"\[g2\]: bound to")
    running.expect(r"\[g3\]: bound to")
    running.expect(r"\[g2\]: retired, successor generation 3")
    assert running.stop() == ExitStatus.OK


def test_a_stop_during_one_ends_old_and_new(daemon: Daemon) -> None:
    running = daemon()
    running.expect("bound to")
    running.reload("silent")
    running.pids(2)
    assert running.stop() == ExitStatus.OK
    running.expect_all(r"\[g1w\d\]: got stop")
    running.expect_all(r"\[g2w\d\]: got stop")
