"""Bytes and a reset that reach a worker at the same moment: it reads on to the reset and ends the connection.

libuv tells of such a socket once and then watches it no more, so a reader that reads once would wait for
ever. The worker is stopped for a moment, as a busy machine does, so that both are there when it looks.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from .certificates import Certificates
from .daemon import await_footprint, children, footprint
from .echo import open_plain, open_tls
from .harness import Culvert
from .peers import Listener, reset


@pytest.fixture(scope="module")
def target() -> Iterator[Listener]:
    """The backend, which the test plays."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    target: Listener,
    event_loop_environment: dict[str, str],
) -> Iterator[Culvert]:
    """A server service and a client service."""
    leaf = certificates.server
    services = (
        f"[server]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{target.port}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
        f"[client]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{target.port}\n"
    )
    folder = tmp_path_factory.mktemp("reset")
    with Culvert(folder, services, environment=event_loop_environment) as daemon:
        yield daemon


@contextlib.contextmanager
def stopped_worker(daemon: Culvert) -> Iterator[None]:
    """The only worker stands still."""
    (worker,) = children(daemon.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def await_ending(daemon: Culvert, since: int) -> None:
    """Waits for the end of the connection that a log line since then tells of."""
    daemon.await_log(r"Connection (closed|reset): ", timeout=8, since=since)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("side", ["tls", "plain"])
def test_while_data_flows(
    daemon: Culvert, certificates: Certificates, target: Listener, side: str, size: int
) -> None:
    before = footprint(daemon.pid)
    mark = daemon.log.mark()
    peer = open_tls(daemon.port("server"), certificates.ca.cert)
    backend = target.accept()
    peer.send(b"ready")
    assert backend.recv(5) == b"ready"
    with stopped_worker(daemon):
        sock, data = (peer.sock, peer.seal(bytes(size))) if side == "tls" else (backend, bytes(size))
        sock.setblocking(False)
        assert sock.send(data) > 0
        reset(sock)
    await_ending(daemon, mark)
    peer.close()
    backend.close()
    await_footprint(daemon.pid, before)


def test_in_the_handshake_of_a_server(daemon: Culvert) -> None:
    before = footprint(daemon.pid)
    mark = daemon.log.mark()
    peer = open_plain(daemon.port("server"))
    daemon.await_log("accepted connection", since=mark)
    with stopped_worker(daemon):
        peer.send(b"\x16\x03\x01\x02\x00\x01")
        reset(peer.sock)
    await_ending(daemon, mark)
    await_footprint(daemon.pid, before)


def test_in_the_handshake_of_a_client(daemon: Culvert, target: Listener) -> None:
    before = footprint(daemon.pid)
    mark = daemon.log.mark()
    peer = open_plain(daemon.port("client"))
    backend = target.accept()
    assert backend.recv(1)
    with stopped_worker(daemon):
        backend.send(b"\x16\x03")
        reset(backend)
    await_ending(daemon, mark)
    peer.close()
    await_footprint(daemon.pid, before)
