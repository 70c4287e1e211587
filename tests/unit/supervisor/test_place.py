"""The supervisor's place in the system: a daemon with its pid file, or a process of the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from culvert.config.model import Foreground
from culvert.privileges import ExitStatus

from ..options import OPTIONS
from .small_daemon import QUICK, SmallDaemon

Daemon = Callable[..., SmallDaemon]


def test_the_pid_file_stands_while_it_serves(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    running = daemon(options=dataclasses.replace(OPTIONS, pid=str(path)))
    running.expect("bound to")
    assert path.read_text() == f"{running.pid}\n"
    assert running.stop() == ExitStatus.OK
    assert not path.exists()


def test_the_pid_file_is_inside_the_jail(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "jail" / "run").mkdir(parents=True)
    running = daemon(options=dataclasses.replace(OPTIONS, chroot=str(tmp_path / "jail"), pid="/run/pid"))
    running.expect("bound to")
    assert (tmp_path / "jail" / "run" / "pid").read_text() == f"{running.pid}\n"
    assert running.stop() == ExitStatus.OK
    assert not any((tmp_path / "jail" / "run").iterdir())


def test_a_pid_file_that_cannot_be_written_fails_the_start(daemon: Daemon, tmp_path: Path) -> None:
    running = daemon(options=dataclasses.replace(OPTIONS, pid=f"{tmp_path}/none/pid"))
    assert running.wait() == ExitStatus.CONFIGURATION
    running.expect(
        rf"LOG3\[main\]: Cannot create the pid file {tmp_path}/none/pid: No such file or directory"
    )
    running.expect("retired, successor none")
    assert running.count("g1w") == 0


def daemonized(tmp_path: Path) -> dict[str, object]:
    return {"options": dataclasses.replace(OPTIONS, foreground=Foreground.NO, pid=f"{tmp_path}/pid")}


@pytest.fixture
def adopted(daemon: Daemon, tmp_path: Path) -> Iterator[SmallDaemon]:
    """A daemon whose launcher has ended: `pid` is the daemon's, which is nobody's child here."""
    running = daemon(**daemonized(tmp_path))
    assert running.wait() == 0
    running.pid = int((tmp_path / "pid").read_text())
    handle = os.pidfd_open(running.pid)
    yield running
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)


def test_the_launcher_ends_once_the_daemon_serves(adopted: SmallDaemon, tmp_path: Path) -> None:
    adopted.expect("bound to")
    assert os.getsid(adopted.pid) not in (adopted.pid, os.getsid(0))
    assert Path(f"/proc/{adopted.pid}/cwd").readlink() == Path("/")
    for pid in (adopted.pid, *adopted.pids(1)):
        assert [Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in range(3)] == [Path(os.devnull)] * 3
    adopted.send(signal.SIGTERM)
    adopted.expect("Terminated")
    assert not (tmp_path / "pid").exists()


def test_a_reload_finds_relative_paths_from_where_it_was_started(adopted: SmallDaemon) -> None:
    adopted.reload("good")
    adopted.expect(r"\[g2\]: bound to")
    assert Path(f"/proc/{adopted.pid}/cwd").readlink() == Path("/")
    adopted.send(signal.SIGTERM)
    adopted.expect("Terminated")


@pytest.mark.parametrize(
    ("plan", "status"), [("refuses", ExitStatus.CONFIGURATION), ("faulty", ExitStatus.FAILED_START)]
)
def test_the_launcher_ends_with_the_status_of_a_failed_start(
    daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str], plan: str, status: ExitStatus
) -> None:
    running = daemon(plan, **daemonized(tmp_path))
    assert running.wait() == status
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("[!] ")
    assert "before all workers were ready" in told.err
    running.expect("Terminated")
    assert not (tmp_path / "pid").exists()


def test_the_launcher_ends_with_a_failure_when_the_daemon_is_stopped_too_early(
    daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    running = daemon("silent", timing=QUICK, **daemonized(tmp_path))
    running.pids(1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert running.wait() == ExitStatus.FAILED_START
    assert capfd.readouterr().err == "[!] The daemon ended before it was ready\n"
