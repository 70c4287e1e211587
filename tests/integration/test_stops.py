"""Stops as service managers do them: a signal to the whole group, in the middle of what goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import children, fixed_ports
from .echo import GREETING, echo, echo_service, open_tls
from .harness import Culvert, eventually
from .peers import Peers, read_exactly

Start = Callable[..., Culvert]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same over reloads."""
    with fixed_ports(1) as ports:
        yield ports[0]


def test_workers_leave_a_stop_to_the_supervisor(culvert: Start, certificates: Certificates) -> None:
    """systemd stops all processes of a service at once, unless told otherwise: workers may hear it first."""
    daemon = culvert(echo_service(certificates), workers=2)
    for pid in children(daemon.pid):
        os.kill(pid, signal.SIGTERM)
    mark = daemon.log.mark()
    daemon.send_signal(signal.SIGUSR2)
    eventually(lambda: len(daemon.log.find(r"Service \[echo\] in process", mark)) == 2, "both answers")
    daemon.stop()
    assert not daemon.log.find("LOG[0-4]|replaced"), "\n".join(daemon.log.lines)


@pytest.mark.parametrize("workers", [0, 1])
def test_connections_of_before_a_reload_are_ended_too(
    culvert: Start, certificates: Certificates, port: int, workers: int
) -> None:
    services = echo_service(certificates, port)
    daemon = culvert(services, workers=workers)
    old = open_tls(port, certificates.ca.cert)
    echo(old)
    mark = daemon.reload(services)
    daemon.await_log("Accepting new connections", since=mark)
    new = open_tls(port, certificates.ca.cert)
    echo(new)
    mark = daemon.log.mark()
    daemon.send_signal(signal.SIGUSR2)
    for _ in range(2):
        daemon.await_log(r"connection \[\d+\] from 127\.0\.0\.1", since=mark)
    eventually(lambda: len(daemon.log.find(r"connection \[\d+\] from", mark)) == 2, "both connections")
    daemon.stop()
    assert len(daemon.log.find("Connection closed: ")) == 2
    assert not daemon.log.find("pending|Exception")
    for peer in (old, new):
        peer.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_clients_that_leave_in_the_handshake(
    culvert: Start,
    certificates: Certificates,
    peers: Peers,
    workers: int,
    event_loop_environment: dict[str, str],
) -> None:
    daemon = culvert(echo_service(certificates), workers=workers, environment=event_loop_environment)
    clients = [peers.dial(daemon.port("echo")) for _ in range(60)]
    daemon.await_log(r"\[5\]: Service \[echo\] accepted")
    for client in clients:
        client.close()
    daemon.stop()
    assert not daemon.log.find("fault of culvert|Exception|InvalidStateError")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_unix_socket_is_removed(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    path = tmp_path / "socket"
    leaf = certificates.server
    service = f"[unix]\naccept = {path}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n"
    daemon = culvert(service, workers=workers)
    assert path.is_socket()
    daemon.stop()
    assert not path.exists()


def test_a_second_stop_changes_nothing(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates), workers=2)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    peer.send(GREETING)
    assert read_exactly(peer, len(GREETING)) == GREETING
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        daemon.send_signal(number)
    daemon.stop()
    peer.close()
