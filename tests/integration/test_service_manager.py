"""The daemon under a service manager: what it tells, and that nobody else speaks for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import Detached, Jail, children, fixed_ports, needs_root, status
from .echo import echo, echo_service, finish, open_tls
from .harness import Culvert, eventually
from .peers import read_all
from .service_manager import Manager

Start = Callable[..., Culvert]

HEADER = "foreground = yes\nsyslog = no\npid =\ndebug = 7\n"
processes = pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Who started the daemon."""
    with Manager(tmp_path / "notify") as manager:
        yield manager


@processes
def test_from_the_start_to_the_end(
    culvert: Start, certificates: Certificates, manager: Manager, workers: int
) -> None:
    with fixed_ports(1) as (port,):
        services = echo_service(certificates, port)
        daemon = culvert(
            services,
            header=HEADER + "drainTimeout = 60\n",
            workers=workers,
            environment=manager.environment,
        )
        ready = manager.wait("READY")
        assert ready["MAINPID"] == str(daemon.pid)
        assert ready["STATUS"].startswith("Serving 1 service(s) with")
        peer = open_tls(port, certificates.ca.cert)
        echo(peer)
        asked = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        daemon.reload(services)
        begun = manager.wait("RELOADING")
        assert int(begun["MONOTONIC_USEC"]) >= asked  # as Type=notify-reload demands
        assert manager.wait("READY")["STATUS"] == ready["STATUS"]
        daemon.send_signal(signal.SIGTERM)
        stopping = manager.wait("STOPPING")
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 60_000_000
        assert "waiting for 1 connection(s) to finish" in manager.wait("STATUS")["STATUS"]
        finish(peer)
        assert daemon.wait() == 0
        daemon.stop()


@processes
def test_a_reload_that_fails_is_over_too(
    culvert: Start, certificates: Certificates, manager: Manager, workers: int
) -> None:
    with fixed_ports(1) as (port,):
        daemon = culvert(echo_service(certificates, port), workers=workers, environment=manager.environment)
        manager.wait("READY")
        daemon.reload("[echo]\nnonsense = 1\n")
        manager.wait("RELOADING")
        told = manager.wait("READY")["STATUS"]
        assert told.startswith("Reload failed, Serving 1 service(s) with")
        assert "nonsense" in told
        daemon.stop()


def test_an_abstract_socket_and_programs_that_do_not_see_it(
    culvert: Start, certificates: Certificates
) -> None:
    with Manager(f"@culvert-{os.getpid()}") as manager:
        daemon = culvert(
            echo_service(certificates, sink="exec = /usr/bin/env"),
            environment={**manager.environment, "WATCHDOG_USEC": "60000000", "LISTEN_FDS": "1"},
        )
        manager.wait("READY")
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        said = read_all(peer)
        peer.close()
        assert b"PATH=" in said
        for name in (b"NOTIFY_SOCKET", b"WATCHDOG_", b"LISTEN_"):
            assert name not in said
        daemon.stop()


@needs_root
@processes
def test_it_is_told_from_behind_the_jail(
    tmp_path: Path, certificates: Certificates, manager: Manager, workers: int
) -> None:
    """By a daemon that left its terminal as well: who started it says which process that is."""
    jail = Jail(tmp_path)
    with fixed_ports(1) as (port,):
        text = jail.options + f"workers = {workers}\n" + echo_service(certificates, port)
        with Detached(
            tmp_path,
            text,
            pid_file=jail.pid_file,
            log_file=jail.log_file,
            environment=manager.environment,
        ) as daemon:
            assert manager.wait("READY") == {"READY": "1", "MAINPID": str(daemon.pid)}
            daemon.stop()
            manager.wait("STOPPING")


def test_a_start_that_fails_is_explained(
    tmp_path: Path, certificates: Certificates, manager: Manager
) -> None:
    daemon = Culvert(
        tmp_path,
        echo_service(certificates),
        header="foreground = yes\nsyslog = no\npid = /nonexistent/pid\n",
        environment=manager.environment,
    )
    daemon.launch()
    assert daemon.wait() == 1
    assert "/nonexistent/pid" in manager.wait("STATUS")["STATUS"]
    assert not any("READY" in message for message in manager.heard)


class TestWatchdog:
    """WATCHDOG=1 while the supervisor and its workers live."""

    @processes
    def test_it_is_fed_at_half_of_its_time(
        self, culvert: Start, certificates: Certificates, manager: Manager, workers: int
    ) -> None:
        environment = {**manager.environment, "WATCHDOG_USEC": "400000"}
        daemon = culvert(echo_service(certificates), workers=workers, environment=environment)
        manager.wait("READY")
        manager.wait("WATCHDOG")
        started = time.monotonic()
        for _ in range(3):
            manager.wait("WATCHDOG")
        assert time.monotonic() - started > 0.3
        daemon.stop()

    def test_a_worker_that_hangs_withholds_it_until_it_answers(
        self, culvert: Start, certificates: Certificates, manager: Manager
    ) -> None:
        environment = {**manager.environment, "WATCHDOG_USEC": "400000"}
        daemon = culvert(echo_service(certificates), workers=2, environment=environment)
        manager.wait("WATCHDOG")
        hung = children(daemon.pid)[0]
        os.kill(hung, signal.SIGSTOP)
        daemon.await_log(rf"LOG3\[main\]: Worker \d \(pid {hung}\) does not answer")
        manager.catch_up()
        assert manager.hears_nothing_of("WATCHDOG", 1.0)
        os.kill(hung, signal.SIGCONT)
        manager.wait("WATCHDOG")
        daemon.stop()

    def test_a_supervisor_that_hangs_withholds_it(
        self, culvert: Start, certificates: Certificates, manager: Manager
    ) -> None:
        environment = {**manager.environment, "WATCHDOG_USEC": "400000"}
        daemon = culvert(echo_service(certificates), environment=environment)
        manager.wait("WATCHDOG")
        daemon.send_signal(signal.SIGSTOP)
        eventually(lambda: status(daemon.pid)["State"][0] == "T", "the stopped supervisor")
        manager.catch_up()
        assert manager.hears_nothing_of("WATCHDOG", 0.8)
        daemon.send_signal(signal.SIGCONT)
        manager.wait("WATCHDOG")
        daemon.stop()


def test_a_manager_that_is_not_there_is_told_of(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates), environment={"NOTIFY_SOCKET": "/nonexistent/notify"})
    daemon.await_log("Cannot tell the service manager at NOTIFY_SOCKET /nonexistent/notify")
    daemon.stop()
