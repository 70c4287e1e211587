"""A backend that gives back what it gets, and clients that say a line through a tunnel to it."""

from __future__ import annotations

import contextlib
import functools
import socket
from pathlib import Path

from OpenSSL import SSL

from .answering import AnsweringServer
from .certificates import Certificates
from .harness import PATIENCE
from .peers import (
    Peer,
    PlainPeer,
    TlsPeer,
    TruncatedError,
    client_context,
    dial,
    read_all,
    read_exactly,
)

GREETING = b"hello through the tunnel\n"


def echo_service(
    certificates: Certificates,
    port: int = 0,
    more: str = "",
    *,
    name: str = "echo",
    sink: str = "exec = /bin/cat",
) -> str:
    """The section of a server service that gives back what it gets, in five lines before `more`."""
    leaf = certificates.server
    if more:
        more += "\n"
    return f"[{name}]\naccept = 127.0.0.1:{port}\n{sink}\ncert = {leaf.cert}\nkey = {leaf.key}\n{more}"


def _echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


class EchoServer(AnsweringServer):
    """A plain TCP server that gives back what it gets, one thread for each connection."""

    def __init__(self) -> None:
        super().__init__(_echo)


@functools.cache
def trusting(trust: Path) -> SSL.Context:
    """A client's context that verifies against the file `trust`."""
    return client_context(trust=trust)


def open_tls(port: int, trust: Path) -> TlsPeer:
    """A TLS connection, after its handshake."""
    peer = TlsPeer(dial(port), trusting(trust), server=False)
    try:
        peer.handshake()
    except BaseException:
        peer.close()
        raise
    return peer


def open_plain(port: int) -> PlainPeer:
    """A plain connection."""
    return PlainPeer(dial(port))


def echo(peer: TlsPeer | PlainPeer, line: bytes = GREETING) -> None:
    """Sends a line and takes it back; the connection stays open."""
    peer.send(line)
    assert read_exactly(peer, len(line)) == line


def finish(peer: TlsPeer | PlainPeer) -> None:
    """Ends a connection in order: says so, reads the other side's end, closes."""
    try:
        peer.end()
        assert read_all(peer) == b""
    finally:
        peer.close()


def say_tls(port: int, trust: Path, line: bytes = GREETING) -> None:
    """A whole TLS connection that has a line given back."""
    peer = open_tls(port, trust)
    try:
        echo(peer, line)
        peer.end()
        assert read_all(peer) == b""
    finally:
        peer.close()


def say_plain(port: int, line: bytes = GREETING) -> None:
    """A whole plain connection that has a line given back."""
    peer = open_plain(port)
    try:
        echo(peer, line)
        peer.end()
        assert read_all(peer) == b""
    finally:
        peer.close()


def await_end(peer: Peer) -> None:
    """Waits until the daemon ends a connection that it does not serve."""
    with contextlib.suppress(ConnectionError, SSL.Error, TruncatedError):
        assert peer.recv() == b""
    peer.close()


def knock(port: int) -> int:
    """A plain client that the daemon sends away, maybe before its connect returns; gives its port."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", 0))
        client: int = sock.getsockname()[1]
        with contextlib.suppress(ConnectionError):
            sock.connect(("127.0.0.1", port))
            while sock.recv(65536):
                pass
    return client


def refused_tls(port: int, context: SSL.Context) -> None:
    """A TLS client that is not served, in its handshake or behind it."""
    peer = TlsPeer(dial(port), context, server=False)
    with contextlib.suppress(ConnectionError, SSL.Error, TruncatedError):
        peer.handshake()
        assert peer.recv() == b""
    peer.close()
