"""`workers = 0`: one process without a fork, which reloads, rotates and lists like the others."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LogFile, answers, children, fixed_ports
from .echo import EchoServer, echo, echo_service, finish, open_tls, say_tls
from .harness import Culvert, eventually

Start = Callable[..., Culvert]


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Ports that stay the same over reloads."""
    with fixed_ports(2) as ports:
        yield ports


@pytest.fixture
def sink() -> Iterator[str]:
    """A backend without a process of its own."""
    with EchoServer() as server:
        yield f"connect = 127.0.0.1:{server.port}"


def reload(daemon: Culvert, services: str, outcome: str = "Accepting new connections") -> None:
    """Loads the configuration anew and waits for the outcome."""
    mark = daemon.reload(services)
    daemon.await_log(outcome, since=mark)


def test_there_is_one_process(
    culvert: Start, certificates: Certificates, ports: list[int], sink: str
) -> None:
    daemon = culvert(echo_service(certificates, ports[0], sink=sink), workers=0)
    say_tls(ports[0], certificates.ca.cert)
    assert daemon.tree() == [daemon.pid]


def test_a_good_reload_changes_services_and_keeps_connections(
    culvert: Start, certificates: Certificates, ports: list[int], sink: str
) -> None:
    trust = certificates.ca.cert
    one = echo_service(certificates, ports[0], sink=sink)
    two = echo_service(certificates, ports[1], name="two", sink=sink)
    daemon = culvert(one, workers=0)
    peer = open_tls(ports[0], trust)
    echo(peer)
    reload(daemon, one + two)
    say_tls(ports[1], trust)
    reload(daemon, two)
    eventually(lambda: not answers(ports[0]), "the first port's end")
    say_tls(ports[1], trust)
    echo(peer)
    finish(peer)
    assert daemon.tree() == [daemon.pid]


def test_a_bad_reload_changes_nothing(
    culvert: Start, certificates: Certificates, ports: list[int], sink: str
) -> None:
    good = echo_service(certificates, ports[0], sink=sink)
    daemon = culvert(good, workers=0)
    reload(daemon, good + "verify = 9\n", r"LOG3\[\w+\]: Configuration failed")
    say_tls(ports[0], certificates.ca.cert)
    reload(daemon, good.replace(str(certificates.server.key), "/nonexistent/key"), "Configuration failed")
    say_tls(ports[0], certificates.ca.cert)


def test_many_reloads_leave_nothing(
    culvert: Start, certificates: Certificates, ports: list[int], sink: str
) -> None:
    services = echo_service(certificates, ports[0], sink=sink)
    daemon = culvert(services, workers=0)
    reload(daemon, services)
    say_tls(ports[0], certificates.ca.cert)
    before = daemon.descriptors()
    for _ in range(8):
        reload(daemon, services)
        say_tls(ports[0], certificates.ca.cert)
    daemon.await_descriptors(before)


def test_the_log_is_opened_anew(
    culvert: Start, certificates: Certificates, ports: list[int], sink: str, tmp_path: Path
) -> None:
    log = LogFile(tmp_path / "the.log")
    services = echo_service(certificates, ports[0], sink=sink)
    daemon = culvert(services, workers=0, options=f"output = {log.path}\n")
    log.path.rename(tmp_path / "the.log.1")
    daemon.send_signal(signal.SIGUSR1)
    eventually(log.path.exists, "the new log")
    say_tls(ports[0], certificates.ca.cert)
    log.wait("Connection closed")


def test_a_program_is_no_worker(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    daemon = culvert(echo_service(certificates, ports[0]), workers=0)
    peer = open_tls(ports[0], certificates.ca.cert)
    echo(peer)
    assert len(children(daemon.pid)) == 1
    finish(peer)
    eventually(lambda: not children(daemon.pid), "the program's end")
    say_tls(ports[0], certificates.ca.cert)
