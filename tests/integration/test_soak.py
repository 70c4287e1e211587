"""Many connections: what they took, memory and descriptors, is given back when they are gone."""

from __future__ import annotations

import itertools
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import Culvert, eventually
from .peers import Listener, Peers, TlsPeer, background, client_context, dial, read_all

Start = Callable[..., Culvert]

IDLE = 2000
SOAK_SECONDS = float(os.environ.get("CULVERT_SOAK_SECONDS", "10"))
"""The rate test's length: the full minute is CULVERT_SOAK_SECONDS=60."""

MEGABYTE = 1 << 20


@pytest.fixture
def quiet(culvert: Start, certificates: Certificates) -> Callable[[str, int], Culvert]:
    """A server [s] that logs little, with these options."""

    def start(options: str, workers: int = 1) -> Culvert:
        return culvert(
            f"[s]\naccept = 127.0.0.1:0\ndebug = notice\n{options}"
            f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n",
            workers=workers,
        )

    return start


class Sink:
    """A backend that accepts, answers nothing, and closes when its peer does."""

    def __init__(self) -> None:
        self.listener = Listener(backlog=4096)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener.sock, selectors.EVENT_READ)
        self.listener.sock.setblocking(False)
        self.held: set[socket.socket] = set()
        self._running = True
        self._thread = background(self._serve)

    def _serve(self) -> None:
        while self._running:
            for key, _ in self._selector.select(timeout=0.2):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self.listener.sock:
                    self._accept()
                elif not self._read(sock):
                    self._selector.unregister(sock)
                    self.held.discard(sock)
                    sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self.listener.sock.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        self.held.add(sock)
        self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> bool:
        try:
            return bool(sock.recv(4096))
        except ConnectionError:
            return False

    def close(self) -> None:
        """Closes everything."""
        self._running = False
        self._thread.result(5)
        for sock in self.held:
            sock.close()
        self._selector.close()
        self.listener.close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A backend for idle connections."""
    sink = Sink()
    yield sink
    sink.close()


def connect_idle(port: int, count: int, context: SSL.Context) -> list[socket.socket]:
    """`count` TLS clients after their handshake, which resume one session to be quick."""
    session = None
    clients = []
    for _ in range(count):
        peer = TlsPeer(dial(port), context, server=False)
        if session is not None:
            peer.engine.set_session(session)
        peer.handshake()
        if session is None:
            session = peer.engine.get_session()
        clients.append(peer.sock)
    return clients


def test_idle_clients_that_leave_at_the_same_moment(quiet: Callable[..., Culvert], sink: Sink) -> None:
    """The second wave finds room in what the first one has given back."""
    daemon = quiet(f"connect = 127.0.0.1:{sink.listener.port}\n")
    context = client_context("TLSv1.2")
    before = daemon.descriptors()
    after = []
    for _ in range(2):
        clients = connect_idle(daemon.port("s"), IDLE, context)
        eventually(lambda: len(sink.held) == IDLE, "every connection at the backend")
        assert daemon.descriptors() >= before + 2 * IDLE
        for sock in clients:
            sock.close()
        daemon.await_descriptors(before)
        eventually(lambda: not sink.held, "the end of every connection at the backend")
        assert idle_cpu(daemon) < 0.1
        after.append(daemon.memory())
    assert after[1] < after[0] + 8 * MEGABYTE


def idle_cpu(daemon: Culvert) -> float:
    """Processor seconds that the daemon uses in half a second, once it is at rest."""

    def used() -> float:
        before = daemon.cpu()
        time.sleep(0.5)
        return daemon.cpu() - before

    eventually(lambda: used() < 0.05, "a daemon at rest", timeout=10)
    return used()


def test_clients_that_connect_and_send_nothing(quiet: Callable[..., Culvert], peers: Peers) -> None:
    """They wait for TIMEOUTbusy while others are served, and then they are gone."""
    daemon = quiet("exec = /bin/echo\nexecArgs = echo welcome\nTIMEOUTbusy = 2\nTIMEOUTclose = 1\n")
    before = daemon.descriptors()
    silent = [peers.dial(daemon.port("s")) for _ in range(100)]
    eventually(lambda: daemon.descriptors() >= before + len(silent), "every connection")
    assert read_all(peers.tls(daemon.port("s"), client_context())) == b"welcome\n"
    daemon.await_descriptors(before, timeout=10)
    for sock in silent:
        with pytest.raises(ConnectionResetError):
            assert sock.recv(1) == b""
            raise ConnectionResetError
    assert idle_cpu(daemon) < 0.1


def test_a_steady_rate_of_connections(quiet: Callable[..., Culvert], sink: Sink) -> None:
    """200 connections a second: memory and descriptors settle."""
    daemon = quiet(f"connect = 127.0.0.1:{sink.listener.port}\n", workers=2)
    context = client_context("TLSv1.3")
    port = daemon.port("s")
    before = daemon.descriptors()

    def visits(seconds: float) -> int:
        """Visits at that rate for that time, and gives how many there were."""
        started = time.monotonic()
        for number in itertools.count():
            if time.monotonic() - started > seconds:
                return number
            with dial(port) as sock:
                peer = TlsPeer(sock, context, server=False)
                peer.handshake()
                peer.send(b"hello")
                peer.end()
            ahead = (number + 1) / 200 - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)
        raise AssertionError

    visits(SOAK_SECONDS / 5)
    daemon.await_descriptors(before)
    settled = daemon.memory()
    served = visits(SOAK_SECONDS)
    daemon.await_descriptors(before)
    assert daemon.memory() < settled + 6 * MEGABYTE, f"after {served} connections"
    assert served > 50 * SOAK_SECONDS
