"""How the daemon leaves its terminal or stays with it, and the life of its pid file."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LOG_LINE, Detached, LogFile, children, command, fixed_ports, run
from .echo import echo_service, say_tls
from .harness import PATIENCE, Culvert, eventually

TAKE_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes standard input the controlling terminal of a new session, then runs a command."""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same whoever listens on it."""
    with fixed_ports(1) as ports:
        yield ports[0]


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """This process's umask, which its children inherit."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def global_options(folder: Path) -> str:
    """The global options of a detached daemon in `folder`."""
    return f"syslog = no\ndebug = 7\npid = {folder}/daemon.pid\noutput = {folder}/daemon.log\n"


@pytest.fixture
def detached(tmp_path: Path, certificates: Certificates, port: int) -> Iterator[Detached]:
    """A daemon with one service, not started."""
    daemon = Detached(tmp_path, global_options(tmp_path) + echo_service(certificates, port))
    yield daemon
    daemon.kill()


class TestDetached:
    """`foreground = no`, which is the default."""

    def test_the_launcher_succeeds_when_the_daemon_serves(
        self, detached: Detached, certificates: Certificates, port: int
    ) -> None:
        launched = detached.launch()
        assert launched.returncode == 0
        assert (launched.stdout, launched.stderr) == ("", "")
        detached.pid = int(detached.pid_file.read_text())
        os.kill(detached.pid, 0)
        say_tls(port, certificates.ca.cert)
        detached.stop()

    def test_no_process_keeps_the_terminal_or_the_session(self, detached: Detached) -> None:
        with detached:
            for pid in detached.tree():
                terminal = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4]
                assert terminal == "0"
                assert os.getsid(pid) != os.getsid(0)
                assert [Path(f"/proc/{pid}/fd/{n}").readlink() for n in range(3)] == [Path(os.devnull)] * 3
            assert Path(f"/proc/{detached.pid}/cwd").readlink() == Path("/")

    def test_the_end_of_the_terminal_does_not_touch_it(
        self, detached: Detached, certificates: Certificates, port: int
    ) -> None:
        master, slave = os.openpty()
        launcher = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command("run", detached.path)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, **detached.environment},
        )
        os.close(slave)
        assert launcher.wait(PATIENCE) == 0
        detached.pid = int(detached.pid_file.read_text())
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.read(master, 1)  # no one holds the terminal any more
        os.close(master)
        say_tls(port, certificates.ca.cert)
        detached.stop()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    def test_a_signal_ends_it_and_its_pid_file(self, detached: Detached, number: signal.Signals) -> None:
        detached.start()
        detached.stop(number)
        assert not detached.pid_file.exists()

    def test_a_busy_port_is_told_to_the_terminal(self, detached: Detached, port: int) -> None:
        with socket.socket() as rival:
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(("127.0.0.1", port))
            rival.listen()
            launched = detached.launch()
        assert launched.returncode == 1
        assert launched.stdout == ""
        assert "Binding service [echo] failed" in launched.stderr
        assert f"127.0.0.1:{port}" in launched.stderr
        assert "Address already in use" in launched.stderr
        assert not detached.leftovers()
        assert not detached.pid_file.exists()


@pytest.mark.parametrize("foreground", ["yes", "no"])
def test_closed_standard_streams_are_no_trap(
    tmp_path: Path, certificates: Certificates, port: int, foreground: str
) -> None:
    text = f"foreground = {foreground}\n{global_options(tmp_path)}{echo_service(certificates, port)}"
    daemon = Detached(tmp_path, text)
    script = 'exec "$@" <&- >&- 2>&-'
    launcher = subprocess.Popen(
        ["sh", "-c", script, "sh", *command("run", daemon.path)], env={**os.environ, **daemon.environment}
    )
    try:
        daemon.log.wait("Accepting new connections")
        daemon.find_pid()
        say_tls(port, certificates.ca.cert)
        for pid in daemon.tree():
            for number in range(3):
                link = Path(f"/proc/{pid}/fd/{number}")
                assert not link.is_symlink() or link.readlink() == Path(os.devnull)
        daemon.send_signal(signal.SIGTERM)
        assert launcher.wait(PATIENCE) == 0
        eventually(lambda: not daemon.leftovers(), "the end of every process")
    finally:
        daemon.kill()
        launcher.wait(PATIENCE)


class TestForeground:
    """`foreground = yes` and `foreground = quiet`."""

    def test_yes_logs_to_standard_error_too(
        self, culvert: Callable[..., Culvert], certificates: Certificates, tmp_path: Path
    ) -> None:
        output = LogFile(tmp_path / "output.log")
        daemon = culvert(echo_service(certificates), options=f"output = {output.path}\n")
        say_tls(daemon.port("echo"), certificates.ca.cert)
        daemon.await_log("Connection closed")
        output.wait("Connection closed")
        assert daemon.process.poll() is None
        assert all(LOG_LINE.match(line) for line in daemon.log.lines)
        served = [line for line in daemon.log.lines if "Accepting new" in line or "Connection closed" in line]
        assert len(served) == 2
        assert [line for line in output.lines if line in served] == served

    def test_quiet_keeps_standard_error_empty(
        self, tmp_path: Path, certificates: Certificates, port: int
    ) -> None:
        output = LogFile(tmp_path / "output.log")
        path = tmp_path / "quiet.conf"
        path.write_text(
            f"foreground = quiet\nsyslog = no\npid =\noutput = {output.path}\ndebug = 7\n"
            + echo_service(certificates, port)
        )
        with subprocess.Popen(
            command("run", path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                output.wait("Accepting new connections")
                say_tls(port, certificates.ca.cert)
                output.wait("Connection closed")
                assert process.poll() is None
            finally:
                process.terminate()
                stdout, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert (stdout, stderr) == (b"", b"")

    def test_an_unknown_value_is_refused(self, tmp_path: Path, certificates: Certificates) -> None:
        path = tmp_path / "wrong.conf"
        path.write_text("foreground = maybe\n" + echo_service(certificates))
        finished = run(command("run", path))
        assert finished.returncode == 1
        assert f'{path}:1: "foreground = maybe": ' in finished.stderr


class TestPidFile:
    """`pid = FILE`."""

    def test_it_names_the_supervisor_and_everyone_may_read_it(
        self, tmp_path: Path, certificates: Certificates
    ) -> None:
        pid_file = tmp_path / "culvert.pid"
        header = f"foreground = yes\nsyslog = no\ndebug = 7\npid = {pid_file}\n"
        folder = tmp_path / "daemon"
        folder.mkdir()
        with umask(0), Culvert(folder, echo_service(certificates), header=header) as daemon:
            assert pid_file.read_text() == f"{daemon.pid}\n"
            assert stat.S_IMODE(pid_file.stat().st_mode) == 0o644
        assert not pid_file.exists()

    def test_a_stale_one_is_replaced(self, detached: Detached) -> None:
        detached.pid_file.write_text("4194304999\n")
        launched = detached.launch()
        assert launched.returncode == 0, launched.stderr
        detached.find_pid()
        os.kill(detached.pid, 0)
        detached.stop()

    def test_an_empty_name_makes_none(
        self, culvert: Callable[..., Culvert], certificates: Certificates
    ) -> None:
        daemon = culvert(echo_service(certificates))
        assert sorted(path.name for path in daemon.folder.iterdir()) == ["culvert.conf", "tmp"]

    def test_one_that_cannot_be_written_is_fatal(
        self, tmp_path: Path, certificates: Certificates, port: int
    ) -> None:
        path = tmp_path / "daemon.conf"
        missing = tmp_path / "missing" / "daemon.pid"
        path.write_text(
            f"foreground = yes\nsyslog = no\npid = {missing}\n" + echo_service(certificates, port)
        )
        finished = run(command("run", path))
        assert finished.returncode == 1
        assert str(missing) in finished.stderr
        assert "No such file or directory" in finished.stderr
        assert "Traceback" not in finished.stderr

    def test_a_killed_worker_does_not_take_it_along(self, detached: Detached) -> None:
        with detached:
            first = children(detached.pid)
            assert first
            os.kill(first[0], signal.SIGKILL)
            eventually(lambda: first[0] not in children(detached.pid), "the worker's end")
            assert detached.pid_file.read_text() == f"{detached.pid}\n"
