"""The two ends that a tunnel joins, as the tests play them: plain sockets and TLS connections.

`PlainPeer` and `TlsPeer` have the same face, so that a test of one direction is a test of the other.
`TlsPeer` keeps the TLS engine apart from its socket (memory BIOs), so that a test decides what goes into
one segment, and sees close_notify, FIN and RST apart. Every wait is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from OpenSSL import SSL

from .certificates import Leaf
from .harness import PATIENCE

Result = TypeVar("Result")

VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


class TruncatedError(Exception):
    """The TLS peer's FIN came without close_notify before it."""


def pattern(size: int, seed: int = 1) -> bytes:
    """Bytes that cannot be compressed or shifted without notice, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    """A short name for many bytes: a failed comparison of these is readable."""
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


def background(work: Callable[..., Result], *arguments: Any) -> Future[Result]:
    """Runs `work` in a thread; `.result(PATIENCE)` gives its value or raises its error."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Peer(Protocol):
    """What both kinds of peer can do."""

    sock: socket.socket

    def send(self, data: bytes) -> None:
        """Sends all of `data`."""

    def recv(self, limit: int = 65536) -> bytes:
        """Some bytes, or none at the orderly end of what the other side sends."""

    def end(self) -> None:
        """Says that nothing more will be sent, and goes on receiving."""

    def close(self) -> None:
        """Closes the socket."""


def read_exactly(peer: Peer, count: int) -> bytes:
    """`count` bytes; fails where the other side ends before."""
    chunks = bytearray()
    while len(chunks) < count:
        data = peer.recv(count - len(chunks))
        assert data, f"the end came after {len(chunks)} of {count} bytes"
        chunks += data
    return bytes(chunks)


def read_all(peer: Peer) -> bytes:
    """Everything until the orderly end."""
    chunks = bytearray()
    while data := peer.recv():
        chunks += data
    return bytes(chunks)


def read_slowly(peer: Peer, rate: float, limit: int = 16384) -> bytes:
    """Everything until the orderly end, `limit` bytes at a time and at most `rate` bytes a second."""
    chunks = bytearray()
    started = time.monotonic()
    while data := peer.recv(limit):
        chunks += data
        ahead = len(chunks) / rate - (time.monotonic() - started)
        if ahead > 0:
            time.sleep(ahead)
    return bytes(chunks)


def reset(sock: socket.socket) -> None:
    """Closes a socket with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def dial(port: int, host: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    """A connected TCP socket whose waits are bounded; `receive_buffer`: what the kernel may keep for it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(PATIENCE)
    try:
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


class Listener:
    """A listening TCP socket, on a port that the kernel chooses if none is given."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        backlog: int = 128,
        port: int = 0,
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((host, port))
        self.sock.listen(backlog)
        self.sock.settimeout(PATIENCE)
        self._accepted: list[socket.socket] = []
        self.host = host
        self.port: int = self.sock.getsockname()[1]

    def accept(self, timeout: float = PATIENCE) -> socket.socket:
        """The next connection."""
        self.sock.settimeout(timeout)
        connection, _ = self.sock.accept()
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted.append(connection)
        return connection

    def close(self) -> None:
        """Stops listening, and closes what it accepted."""
        for sock in [self.sock, *self._accepted]:
            sock.close()


class Peers:
    """Opens the sockets of one test, and closes them all in the end."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], None]] = []

    def dial(self, port: int, host: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
        """See `dial`."""
        sock = dial(port, host, receive_buffer)
        self._closers.append(sock.close)
        return sock

    def listen(
        self,
        host: str = "127.0.0.1",
        receive_buffer: int | None = None,
        backlog: int = 128,
        port: int = 0,
    ) -> Listener:
        """See `Listener`."""
        listener = Listener(host, receive_buffer, backlog, port)
        self._closers.append(listener.close)
        return listener

    def tls(self, port: int, context: SSL.Context, name: str = "") -> TlsPeer:
        """A TLS client connected to a port of 127.0.0.1, after its handshake."""
        peer = TlsPeer(self.dial(port), context, server=False, name=name)
        peer.handshake()
        return peer

    def close(self) -> None:
        """Closes everything that was opened."""
        for close in self._closers:
            close()


class PlainPeer:
    """The end that knows nothing of TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def recv(self, limit: int = 65536) -> bytes:
        return self.sock.recv(limit)

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()


class TlsPeer:
    """The end that speaks TLS. One thread may send while another receives."""

    def __init__(self, sock: socket.socket, context: SSL.Context, *, server: bool, name: str = "") -> None:
        self.sock = sock
        self.engine = SSL.Connection(context, None)
        self._guard = threading.Lock()
        self._order = threading.Lock()
        if server:
            self.engine.set_accept_state()
        else:
            self.engine.set_connect_state()
        if name:
            self.engine.set_tlsext_host_name(name.encode())

    def pending(self) -> bytes:
        """What the engine wants to have sent."""
        out = bytearray()
        while True:
            try:
                out += self.engine.bio_read(65536)
            except SSL.WantReadError:
                return bytes(out)

    def feed(self) -> None:
        """Takes the next bytes from the socket into the engine."""
        data = self.sock.recv(65536)
        if not data:
            raise TruncatedError
        with self._guard:
            self.engine.bio_write(data)

    def handshake(self, and_send: Callable[[TlsPeer], bytes] = lambda _: b"") -> None:
        """The whole handshake; what `and_send` gives goes into one write with the last flight."""
        while True:
            try:
                self.engine.do_handshake()
            except SSL.WantReadError:
                self.sock.sendall(self.pending())
                self.feed()
            except SSL.Error:
                with contextlib.suppress(OSError):
                    self.sock.sendall(self.pending())
                raise
            else:
                self.sock.sendall(self.pending() + and_send(self))
                return

    def seal(self, data: bytes, record: int = 16384) -> bytes:
        """`data` as TLS records of at most `record` bytes, not sent."""
        sealed = bytearray()
        with self._guard:
            for start in range(0, len(data), record):
                self.engine.send(data[start : start + record])
                sealed += self.pending()
        return bytes(sealed)

    def seal_end(self) -> bytes:
        """close_notify as a record, not sent."""
        with self._guard:
            self.engine.shutdown()
            return self.pending()

    def send(self, data: bytes) -> None:
        with self._order:
            for start in range(0, len(data), 65536):
                self.sock.sendall(self.seal(data[start : start + 65536]))

    def recv(self, limit: int = 65536) -> bytes:
        while True:
            with self._guard:
                try:
                    return self.engine.recv(limit)
                except SSL.WantReadError:
                    answer = self.pending()
                except SSL.ZeroReturnError:
                    return b""
            if answer:
                with self._order:
                    self.sock.sendall(answer)
            self.feed()

    def end(self) -> None:
        with self._order:
            self.sock.sendall(self.seal_end())

    def renegotiate(self) -> None:
        """Starts a renegotiation (TLS 1.2); whoever receives from this peer carries it on."""
        with self._order:
            with self._guard, contextlib.suppress(SSL.WantReadError):
                self.engine.renegotiate()
                self.engine.do_handshake()
            self.sock.sendall(self.pending())

    def close(self) -> None:
        self.sock.close()


def client_context(
    version: str | None = None,
    *,
    trust: Path | None = None,
    leaf: Leaf | None = None,
    ciphers: str | None = None,
) -> SSL.Context:
    """A client's context: one TLS version or all, verifying against `trust`, presenting `leaf`."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(VERSIONS[version])
        context.set_max_proto_version(VERSIONS[version])
    if trust is not None:
        context.load_verify_locations(str(trust))
        context.set_verify(SSL.VERIFY_PEER)
    if leaf is not None:
        _present(context, leaf)
    if ciphers is not None:
        context.set_cipher_list(ciphers.encode())
    return context


def server_context(leaf: Leaf, version: str | None = None, *, ask_trust: Path | None = None) -> SSL.Context:
    """A server's context; with `ask_trust` it requires a client certificate of that authority."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    if version is not None:
        context.set_min_proto_version(VERSIONS[version])
        context.set_max_proto_version(VERSIONS[version])
    context.set_session_id(b"tests")
    _present(context, leaf)
    if ask_trust is not None:
        context.load_verify_locations(str(ask_trust))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    return context


def _present(context: SSL.Context, leaf: Leaf) -> None:
    context.use_certificate_chain_file(str(leaf.chain))
    context.use_privatekey_file(str(leaf.key))
