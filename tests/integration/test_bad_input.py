"""Bytes that are no TLS, and TLS that never comes: the connection ends, the log says why, nothing is left."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .daemon import LOG_LINE, Footprint, await_footprint, footprint
from .echo import EchoServer, echo, open_tls, say_tls
from .harness import Culvert
from .peers import TruncatedError, dial, pattern, reset

CLIENT_HELLO_RECORD = b"\x16\x03\x01"


def record(kind: int, length: int, body: bytes = b"") -> bytes:
    """A TLS record whose header says `length`, whatever `body` has."""
    return struct.pack("!BHH", kind, 0x0303, length) + body


GARBAGE = {
    "random": pattern(5000, 7),
    "zeros": bytes(3000),
    "plain text": b"EHLO client.example.com\r\n" * 20,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "oversized record": record(0x16, 0xFFFF) + bytes(70000),
    "empty record": record(0x16, 0),
    "unknown record": record(0x63, 16, bytes(16)),
    "application data": record(0x17, 64, bytes(64)),
    "alert": record(0x15, 2, b"\x02\x28"),
    "endless handshake message": record(0x16, 16384, b"\x01\xff\xff\xff" + bytes(16380)) * 8,
    "old version": record(0x16, 44, b"\x01\x00\x00\x28\x03\x00" + bytes(38)),
}


@pytest.fixture(scope="module")
def backend() -> Iterator[EchoServer]:
    """What the tunnels lead to."""
    with EchoServer() as server:
        yield server


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, backend: EchoServer
) -> Iterator[Culvert]:
    """A server service, one with short patience, and a client service; each was used once."""
    leaf = certificates.server
    credentials = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    services = (
        f"[server]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{backend.port}\n{credentials}"
        f"[hasty]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{backend.port}\n{credentials}TIMEOUTbusy = 1\n"
    )
    with Culvert(tmp_path_factory.mktemp("bad"), services, workers=2) as daemon:
        for _ in range(6):
            say_tls(daemon.port("server"), certificates.ca.cert)
        yield daemon


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: Culvert, certificates: Certificates) -> Iterator[None]:
    """Counts processes, descriptors and temporary files before and after; then a good client is served."""
    before: Footprint = footprint(daemon.pid)
    yield
    await_footprint(daemon.pid, before)
    assert not list(daemon.temporary.iterdir())
    say_tls(daemon.port("server"), certificates.ca.cert)
    await_footprint(daemon.pid, before)


def await_end(sock: socket.socket) -> None:
    """Waits until the daemon ends the connection."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65536):
            pass
    sock.close()


def await_failure(daemon: Culvert, client: int, since: int) -> str:
    """Waits until the connection of this client is over; gives its error line after SSL_accept."""
    accepted = daemon.await_log(
        rf"LOG5\[(\d+)\]: .* accepted connection from 127\.0\.0\.1:{client}$", since=since
    )
    identifier = accepted[1]
    reason = daemon.await_log(rf"LOG3\[{identifier}\]: SSL_accept: (.+)", since=since)[1]
    daemon.await_log(rf"LOG[3-5]\[{identifier}\]: .*127\.0\.0\.1:{client}\b.*failed", since=since)
    daemon.await_log(rf"LOG5\[{identifier}\]: Connection (closed|reset): 0 byte", since=since)
    return reason


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_instead_of_a_handshake(daemon: Culvert, what: str) -> None:
    mark = daemon.log.mark()
    sock = dial(daemon.port("server"))
    client = sock.getsockname()[1]
    with contextlib.suppress(ConnectionError):
        sock.sendall(GARBAGE[what])
        sock.shutdown(socket.SHUT_WR)
    await_end(sock)
    assert await_failure(daemon, client, mark)


def leave(daemon: Culvert, how: str, sent: bytes) -> int:
    """Connects, sends this, and leaves by a FIN or an RST; the client's port."""
    sock = dial(daemon.port("server"))
    client: int = sock.getsockname()[1]
    sock.sendall(sent)
    if how == "fin":
        sock.shutdown(socket.SHUT_WR)
        await_end(sock)
    else:
        reset(sock)
    return client


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_within_its_hello(daemon: Culvert, how: str) -> None:
    mark = daemon.log.mark()
    client = leave(daemon, how, CLIENT_HELLO_RECORD + b"\x02\x00\x01\x00")
    assert await_failure(daemon, client, mark)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_without_a_byte_is_for_debugging(daemon: Culvert, how: str) -> None:
    mark = daemon.log.mark()
    client = leave(daemon, how, b"")
    line = rf"LOG7\[(\d+)\]: Service \[server\] accepted connection from 127\.0\.0\.1:{client}$"
    ident = daemon.await_log(line, since=mark)[1]
    daemon.await_log(rf"LOG7\[{ident}\]: Connection closed: 0 byte", since=mark)
    assert not daemon.log.find(rf"LOG[0-6]\[{ident}\]", since=mark)


@pytest.mark.parametrize("sent", [b"", CLIENT_HELLO_RECORD, record(0x16, 16384, b"\x01\x00\x3f\xfc")])
def test_a_client_that_stalls_in_the_handshake(daemon: Culvert, sent: bytes) -> None:
    mark = daemon.log.mark()
    started = time.monotonic()
    sock = dial(daemon.port("hasty"))
    client = sock.getsockname()[1]
    sock.sendall(sent)
    await_end(sock)
    assert 0.9 < time.monotonic() - started < 6
    accepted = daemon.await_log(
        rf"LOG5\[(\d+)\]: .* accepted connection from 127\.0\.0\.1:{client}$", since=mark
    )
    told = daemon.await_log(rf"LOG[345]\[{accepted[1]}\]: .*(TIMEOUTbusy|timeout|timed out)", since=mark)
    assert LOG_LINE.match(told.string)


def test_a_client_that_drips_does_not_get_more_time(daemon: Culvert) -> None:
    sock = dial(daemon.port("hasty"))
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        sock.sendall(record(0x16, 16384))
        while time.monotonic() - started < 10:
            sock.sendall(b"\x01")
            sock.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                if not sock.recv(1):
                    break
    sock.close()
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("what", ["random", "oversized record", "application data", "plain text"])
def test_garbage_after_the_handshake(daemon: Culvert, certificates: Certificates, what: str) -> None:
    mark = daemon.log.mark()
    peer = open_tls(daemon.port("server"), certificates.ca.cert)
    client = peer.sock.getsockname()[1]
    echo(peer)
    with contextlib.suppress(ConnectionError):
        peer.sock.sendall(GARBAGE[what])
    with contextlib.suppress(ConnectionError, SSL.Error, TruncatedError):
        while peer.recv():
            pass
    peer.close()
    accepted = daemon.await_log(
        rf"LOG5\[(\d+)\]: .* accepted connection from 127\.0\.0\.1:{client}$", since=mark
    )
    daemon.await_log(rf"LOG[34]\[{accepted[1]}\]: .*error:", since=mark)
    daemon.await_log(rf"LOG5\[{accepted[1]}\]: Connection (closed|reset): 25 byte", since=mark)


def test_a_crowd_of_them(daemon: Culvert, certificates: Certificates) -> None:
    trust = certificates.ca.cert
    peer = open_tls(daemon.port("server"), trust)
    socks = []
    for number, garbage in enumerate(list(GARBAGE.values()) * 8):
        sock = dial(daemon.port("server"))
        with contextlib.suppress(ConnectionError):
            sock.sendall(garbage)
        socks.append(sock)
        if number % 16 == 0:
            echo(peer)
    for sock in socks:
        reset(sock)
    echo(peer)
    peer.end()
    with contextlib.suppress(TruncatedError):
        assert peer.recv() == b""
    peer.close()
