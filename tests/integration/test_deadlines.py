"""TIMEOUTconnect and TIMEOUTbusy: a target that does not answer, a peer that stalls in the handshake."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from .certificates import Certificates
from .harness import Culvert
from .peers import Listener, Peers, PlainPeer, TlsPeer, client_context, dial, read_exactly, server_context

Start = Callable[..., Culvert]


@pytest.fixture
def black_hole(peers: Peers) -> Iterator[Listener]:
    """A listener whose queue is full: the kernel drops what else wants to connect."""
    listener = peers.listen(backlog=0)
    queued = []
    for _ in range(8):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", listener.port))
        queued.append(sock)
    yield listener
    for sock in queued:
        sock.close()


def end_of(sock: socket.socket) -> float:
    """Waits for the end of a connection, whatever kind it is, and gives the seconds that it took."""
    started = time.monotonic()
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - started


def test_timeout_connect_ends_the_attempt(culvert: Start, peers: Peers, black_hole: Listener) -> None:
    daemon = culvert(
        "[c]\nclient = yes\naccept = 127.0.0.1:0\nTIMEOUTconnect = 1\n"
        f"connect = 127.0.0.1:{black_hole.port}\n"
    )
    before = daemon.descriptors()
    assert 0.7 < end_of(peers.dial(daemon.port("c"))) < 5
    daemon.await_log(rf"LOG3\[\S+\]: .*127\.0\.0\.1:{black_hole.port}.*(TIMEOUTconnect|timed out)")
    daemon.await_descriptors(before)


def test_timeout_connect_goes_on_to_the_next_target(
    culvert: Start, peers: Peers, black_hole: Listener, certificates: Certificates
) -> None:
    second = peers.listen()
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{black_hole.port}\n"
        f"connect = 127.0.0.1:{second.port}\nTIMEOUTconnect = 1\n"
    )
    plain = PlainPeer(peers.dial(daemon.port("c")))
    plain.send(b"patient")
    tls = TlsPeer(second.accept(), server_context(certificates.server), server=True)
    tls.handshake()
    assert read_exactly(tls, 7) == b"patient"


@pytest.mark.parametrize("first_bytes", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_timeout_busy_ends_a_client_that_stalls_in_the_handshake(
    culvert: Start, peers: Peers, certificates: Certificates, first_bytes: bytes
) -> None:
    """It sends nothing at all, or the begin of a ClientHello; others are served meanwhile."""
    backend = peers.listen()
    daemon = culvert(
        f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{backend.port}\nTIMEOUTbusy = 1\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )
    before = daemon.descriptors()
    stalled = peers.dial(daemon.port("s"))
    stalled.sendall(first_bytes)
    with dial(daemon.port("s")) as sock:
        tls = TlsPeer(sock, client_context(), server=False)
        tls.handshake()
        backend.accept().close()
        assert tls.recv() == b""
    assert 0.5 < end_of(stalled) < 5
    peer = stalled.getsockname()[1]
    daemon.await_log("TIMEOUTbusy")
    daemon.await_log(rf"LOG[34]\[\S+\]: .*127\.0\.0\.1:{peer}")
    daemon.await_descriptors(before)


def test_timeout_busy_ends_a_server_that_never_answers(culvert: Start, peers: Peers) -> None:
    mute = peers.listen()
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{mute.port}\nTIMEOUTbusy = 1\n"
    )
    before = daemon.descriptors()
    plain = peers.dial(daemon.port("c"))
    connection = mute.accept()
    assert 0.5 < end_of(plain) < 5
    assert end_of(connection) < 5
    daemon.await_log("TIMEOUTbusy")
    daemon.await_descriptors(before)
