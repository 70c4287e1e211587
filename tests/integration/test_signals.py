"""The signals: the end, the log opened anew, the list of connections."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import Detached, Jail, LogFile, answers, children, fixed_ports, needs_root
from .echo import echo, echo_service, finish, open_tls, say_tls
from .harness import Culvert, eventually
from .peers import TlsPeer

Start = Callable[..., Culvert]

ENDS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


def assert_cut(peer: TlsPeer) -> None:
    """Asserts that a connection is over."""
    try:
        assert peer.sock.recv(65536) != b"x"
    except ConnectionError:
        pass
    finally:
        peer.close()


class TestEnd:
    """SIGTERM, SIGINT and SIGQUIT."""

    @pytest.mark.parametrize("number", ENDS)
    @pytest.mark.parametrize("workers", [0, 2])
    def test_exit_status_zero_and_no_pid_file(
        self, tmp_path: Path, certificates: Certificates, number: signal.Signals, workers: int
    ) -> None:
        pid_file = tmp_path / "culvert.pid"
        header = f"foreground = yes\nsyslog = no\ndebug = 7\npid = {pid_file}\n"
        with Culvert(tmp_path, echo_service(certificates), header=header, workers=workers) as daemon:
            assert pid_file.exists()
            port = daemon.port("echo")
            daemon.stop(number)
            assert not pid_file.exists()
            assert not answers(port)

    def test_open_connections_do_not_hold_it_up(self, culvert: Start, certificates: Certificates) -> None:
        daemon = culvert(echo_service(certificates), workers=2)
        peers = [open_tls(daemon.port("echo"), certificates.ca.cert) for _ in range(4)]
        for peer in peers:
            echo(peer)
        started = time.monotonic()
        daemon.stop()
        assert time.monotonic() - started < 5
        for peer in peers:
            assert_cut(peer)

    @pytest.mark.parametrize("attempt", range(4))
    def test_clients_that_leave_at_that_moment(
        self, culvert: Start, certificates: Certificates, attempt: int
    ) -> None:
        daemon = culvert(echo_service(certificates))
        peers = [open_tls(daemon.port("echo"), certificates.ca.cert) for _ in range(4 + attempt)]
        for peer in peers:
            peer.close()
        started = time.monotonic()
        daemon.stop()
        assert time.monotonic() - started < 4
        assert not daemon.log.find("did not stop in time")

    def test_the_terminals_interrupt_reaches_everyone_at_once(
        self, culvert: Start, certificates: Certificates
    ) -> None:
        daemon = culvert(echo_service(certificates), workers=2)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        for pid in reversed(daemon.tree()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        daemon.stop()
        assert_cut(peer)

    def test_twice_is_no_more_than_once(self, culvert: Start, certificates: Certificates) -> None:
        daemon = culvert(echo_service(certificates), workers=2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            daemon.send_signal(number)
        assert daemon.wait() == 0
        daemon.stop()

    def test_workers_end_with_a_supervisor_that_is_killed(
        self, culvert: Start, certificates: Certificates
    ) -> None:
        daemon = culvert(echo_service(certificates), workers=2)
        daemon.process.kill()
        daemon.process.wait()
        eventually(lambda: not daemon.leftovers(), "the workers' end")
        daemon.log.wait_end()
        daemon.stdout.wait_end()
        daemon.stopped = True


class TestEveryone:
    """What reaches every process at once, as from killall, or comes too early."""

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE])
    def test_no_worker_dies_of_it(
        self, culvert: Start, certificates: Certificates, number: signal.Signals
    ) -> None:
        with fixed_ports(1) as (port,):
            daemon = culvert(echo_service(certificates, port), workers=2)
            peer = open_tls(port, certificates.ca.cert)
            echo(peer)
            for pid in [daemon.pid, *children(daemon.pid)]:
                os.kill(pid, number)
            for _ in range(4):
                say_tls(port, certificates.ca.cert)
            echo(peer)
            finish(peer)
            daemon.stop()

    def test_the_pid_file_means_that_signals_are_welcome(
        self, tmp_path: Path, certificates: Certificates
    ) -> None:
        with fixed_ports(1) as (port,):
            text = (
                f"syslog = no\ndebug = 7\npid = {tmp_path}/daemon.pid\noutput = {tmp_path}/daemon.log\n"
                + echo_service(certificates, port)
            )
            daemon = Detached(tmp_path, text)
            try:
                assert daemon.launch().returncode == 0
                daemon.find_pid()
                for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                    daemon.send_signal(number)
                say_tls(port, certificates.ca.cert)
                daemon.stop()
            finally:
                daemon.kill()


class TestReopen:
    """SIGUSR1."""

    @staticmethod
    def rotate(log: LogFile) -> LogFile:
        """Renames a log as logrotate does, and gives the renamed one."""
        renamed = log.path.with_suffix(".1")
        log.path.rename(renamed)
        return LogFile(renamed)

    def test_every_process_writes_to_the_new_file(
        self, culvert: Start, certificates: Certificates, tmp_path: Path
    ) -> None:
        log = LogFile(tmp_path / "the.log")
        daemon = culvert(echo_service(certificates), options=f"output = {log.path}\n", workers=2)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        old = self.rotate(log)
        daemon.send_signal(signal.SIGUSR1)
        eventually(log.path.exists, "the new log")
        self.await_all_on(log, [daemon.pid, *children(daemon.pid)])
        before = old.mark()
        finish(peer)
        for _ in range(4):
            say_tls(daemon.port("echo"), certificates.ca.cert)
        eventually(lambda: len(log.find("Connection closed")) == 5, "the connections in the new log")
        assert old.mark() == before

    @staticmethod
    def await_all_on(log: LogFile, pids: list[int]) -> None:
        """Waits until each process holds the log and none holds one that was renamed."""

        def settled() -> bool:
            for pid in pids:
                held = [str(entry.resolve()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
                if str(log.path.resolve()) not in held or str(log.path.with_suffix(".1")) in held:
                    return False
            return True

        eventually(settled, "the new log in every process")

    def test_no_descriptor_is_left_by_many(
        self, culvert: Start, certificates: Certificates, tmp_path: Path
    ) -> None:
        log = LogFile(tmp_path / "the.log")
        daemon = culvert(echo_service(certificates), options=f"output = {log.path}\n", workers=2)
        before = daemon.descriptors()
        for _ in range(10):
            log.path.unlink()
            daemon.send_signal(signal.SIGUSR1)
            eventually(log.path.exists, "the new log")
        say_tls(daemon.port("echo"), certificates.ca.cert)
        log.wait("Connection closed")
        daemon.await_descriptors(before)

    def test_a_log_that_cannot_be_opened_again_is_kept(
        self, culvert: Start, certificates: Certificates, tmp_path: Path
    ) -> None:
        folder = tmp_path / "logs"
        folder.mkdir()
        daemon = culvert(echo_service(certificates), options=f"output = {folder}/the.log\n")
        log = LogFile(folder / "the.log")
        log.wait("Accepting new connections")
        moved = folder.rename(tmp_path / "moved")
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGUSR1)
        daemon.await_log(r"LOG[1-4]\[\w+\]: .*the\.log", since=mark)
        say_tls(daemon.port("echo"), certificates.ca.cert)
        LogFile(moved / "the.log").wait("Connection closed")

    @needs_root
    def test_it_works_from_the_jail(self, tmp_path: Path, certificates: Certificates) -> None:
        jail = Jail(tmp_path)
        jail.room.chmod(0o755)  # the workers' user may not write there
        with fixed_ports(1) as (port,):
            program = "exec = /bin/busybox\nexecArgs = busybox cat"
            text = jail.options + "workers = 2\n" + echo_service(certificates, port, sink=program)
            with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
                old = self.rotate(daemon.log)
                daemon.send_signal(signal.SIGUSR1)
                eventually(daemon.log.path.exists, "the new log")
                for _ in range(4):
                    say_tls(port, certificates.ca.cert)
                eventually(
                    lambda: len(daemon.log.find("Connection closed") + old.find("Connection closed")) == 4,
                    "the connections in the log",
                )
                mark = old.mark()
                say_tls(port, certificates.ca.cert)
                daemon.log.wait("Connection closed")
                assert old.mark() == mark


class TestList:
    """SIGUSR2."""

    @pytest.fixture
    def daemon(self, culvert: Start, certificates: Certificates) -> Iterator[Culvert]:
        """A daemon of two workers with two services."""
        yield culvert(echo_service(certificates) + echo_service(certificates, name="other"), workers=2)

    @staticmethod
    def listing(daemon: Culvert, peer: TlsPeer, service: str, since: int) -> re.Match[str]:
        """The line that lists a connection, by its service and its client's address."""
        port = peer.sock.getsockname()[1]
        return daemon.await_log(rf"LOG\d\[\w+\]: .*\[{service}\].*127\.0\.0\.1:{port}\b.*", since=since)

    def test_the_connections_of_all_workers_are_listed(
        self, daemon: Culvert, certificates: Certificates
    ) -> None:
        services = ["echo", "other"] * 4
        peers = [open_tls(daemon.port(service), certificates.ca.cert) for service in services]
        for peer in peers:
            echo(peer)
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGUSR2)
        lines = {self.listing(daemon, peer, s, mark).string for peer, s in zip(peers, services, strict=True)}
        assert len(lines) == len(peers)
        for peer in peers:
            finish(peer)

    def test_one_that_is_over_is_not(self, daemon: Culvert, certificates: Certificates) -> None:
        past = open_tls(daemon.port("echo"), certificates.ca.cert)
        gone = past.sock.getsockname()[1]
        finish(past)
        daemon.await_log("Connection closed")
        present = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(present)
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGUSR2)
        self.listing(daemon, present, "echo", mark)
        assert not daemon.log.find(rf":{gone}\b", since=mark)
        finish(present)

    def test_it_needs_no_connection(self, daemon: Culvert, certificates: Certificates) -> None:
        daemon.send_signal(signal.SIGUSR2)
        say_tls(daemon.port("echo"), certificates.ca.cert)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_one_from_before_a_reload_is_listed_too(
        self, culvert: Start, certificates: Certificates, workers: int
    ) -> None:
        with fixed_ports(1) as (port,):
            services = echo_service(certificates, port)
            daemon = culvert(services, workers=workers)
            peer = open_tls(port, certificates.ca.cert)
            echo(peer)
            mark = daemon.reload(services)
            daemon.await_log("Accepting new connections", since=mark)
            mark = daemon.log.mark()
            daemon.send_signal(signal.SIGUSR2)
            self.listing(daemon, peer, "echo", mark)
            finish(peer)
            daemon.stop()
