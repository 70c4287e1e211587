"""`workers = 0`: the one process in its place in the system, where it has given up what the start needed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import NOBODY, Detached, Jail, LogFile, command, fixed_ports, needs_root, run
from .echo import echo_service, say_tls
from .harness import Culvert, eventually

PROGRAM = "exec = /bin/busybox\nexecArgs = busybox cat"


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same over reloads."""
    with fixed_ports(1) as (port,):
        yield port


@needs_root
class TestJail:
    """Signals behind chroot and setuid."""

    @pytest.fixture
    def jail(self, tmp_path: Path) -> Jail:
        """A directory to be jailed in."""
        return Jail(tmp_path)

    @pytest.fixture
    def daemon(self, tmp_path: Path, certificates: Certificates, jail: Jail, port: int) -> Iterator[Detached]:
        """A detached daemon in the jail, without the powers of root."""
        text = jail.options + "workers = 0\n" + echo_service(certificates, port, sink=PROGRAM)
        with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
            yield daemon

    def test_the_log_is_opened_anew(self, daemon: Detached, certificates: Certificates, port: int) -> None:
        rotated = LogFile(daemon.log.path.with_suffix(".1"))
        for _ in range(2):
            daemon.log.path.rename(rotated.path)
            daemon.send_signal(signal.SIGUSR1)
            eventually(daemon.log.path.exists, "the new log")
            before = rotated.mark()
            say_tls(port, certificates.ca.cert)
            daemon.log.wait("Connection closed")
            assert rotated.mark() == before
            assert not rotated.find("Cannot reopen")

    def test_a_reload_of_what_is_out_of_sight_changes_nothing(
        self, daemon: Detached, certificates: Certificates, port: int
    ) -> None:
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGHUP)
        daemon.log.wait(r"LOG3\[main\]: Configuration failed", since=mark)
        assert daemon.log.find(rf"LOG3\[main\]: .*{daemon.path}", since=mark)
        assert not daemon.log.find("fault of culvert")
        say_tls(port, certificates.ca.cert)

    def test_a_reload_of_what_is_in_the_jail_is_in_force(
        self, daemon: Detached, jail: Jail, certificates: Certificates, port: int
    ) -> None:
        for path in (daemon.path, certificates.server.cert, certificates.server.key):
            copy = jail.root / path.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            copy.chmod(0o644)
        os.chown(daemon.log.path, NOBODY, NOBODY)
        copy = jail.root / daemon.path.relative_to("/")
        copy.write_text(copy.read_text().replace("[echo]", "[renamed]"))
        for _ in range(2):
            mark = daemon.log.mark()
            daemon.send_signal(signal.SIGHUP)
            daemon.log.wait("Accepting new connections", since=mark)
            assert not daemon.log.find("does not change", since=mark)
            say_tls(port, certificates.ca.cert)
            daemon.log.wait(r"Service \[renamed\] accepted connection", since=mark)

    def test_the_pid_file_goes_with_the_daemon(self, daemon: Detached, jail: Jail) -> None:
        assert jail.pid_file.exists()
        daemon.stop()
        assert not jail.pid_file.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reload_outlives_the_directory_of_the_start(
    tmp_path: Path, certificates: Certificates, port: int, workers: int
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    text = (
        f"syslog = no\ndebug = 7\npid = {tmp_path}/daemon.pid\noutput = {tmp_path}/daemon.log\n"
        f"workers = {workers}\n" + echo_service(certificates, port)
    )
    path = tmp_path / "the.conf"
    path.write_text(text)
    daemon = Detached(start, "", pid_file=tmp_path / "daemon.pid", log_file=tmp_path / "daemon.log")
    try:
        daemon.start(path)
        shutil.rmtree(start)
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGHUP)
        daemon.log.wait("Accepting new connections", since=mark)
        say_tls(port, certificates.ca.cert)
        daemon.stop()
    finally:
        daemon.kill()


def test_signals_and_failures_are_told_as_by_a_supervisor(tmp_path: Path, certificates: Certificates) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    header = f"foreground = yes\nsyslog = no\npid =\ndebug = 7\noutput = {folder}/the.log\n"
    with Culvert(tmp_path, echo_service(certificates), header=header, workers=0) as daemon:
        daemon.send_signal(signal.SIGUSR2)
        daemon.await_log(r"LOG5\[main\]: Received SIGUSR2$")
        daemon.await_log(r"LOG5\[main\]: Service \[echo\] in process \d+: 0 open")
        folder.rename(tmp_path / "moved")
        daemon.send_signal(signal.SIGUSR1)
        daemon.await_log(r"LOG5\[main\]: Received SIGUSR1$")
        daemon.await_log(r"LOG3\[main\]: Cannot reopen .*the\.log")
        say_tls(daemon.port("echo"), certificates.ca.cert)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_unix_socket_goes_with_the_daemon(
    tmp_path: Path, certificates: Certificates, number: signal.Signals
) -> None:
    path = tmp_path / "socket"
    services = echo_service(certificates).replace("127.0.0.1:0", str(path))
    with Culvert(tmp_path, services, workers=0) as daemon:
        assert path.is_socket()
        daemon.stop(number)
        assert not path.exists()


class TestFailedStart:
    """A pid file that cannot be written is found when all else is done."""

    @pytest.mark.parametrize("foreground", ["yes", "no"])
    def test_the_user_is_told_and_nothing_is_left(
        self, tmp_path: Path, certificates: Certificates, foreground: str
    ) -> None:
        path, socket, log = tmp_path / "the.conf", tmp_path / "socket", tmp_path / "the.log"
        path.write_text(
            f"foreground = {foreground}\nsyslog = no\npid = {tmp_path}/nowhere/pid\noutput = {log}\n"
            "workers = 0\n" + echo_service(certificates).replace("127.0.0.1:0", str(socket))
        )
        finished = run(command("run", path))
        assert finished.returncode == 1
        assert f"Cannot create the pid file {tmp_path}/nowhere/pid" in finished.stderr
        assert "[!] " in finished.stderr
        assert "Traceback" not in finished.stderr
        assert not socket.exists()
        if foreground == "no":
            assert "LOG3[main]: " in log.read_text()
            assert "Cannot create the pid file" in log.read_text()
