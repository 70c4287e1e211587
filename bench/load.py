"""The work that the tunnels are given, as seen from the client's side of them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from OpenSSL import SSL

from bench.backend import BLOCK, COUNT, SECONDS
from bench.errors import MeasureError

MESSAGE = bytes(range(64))

_WAIT_SECONDS = 20
_WAIT = struct.pack("ll", _WAIT_SECONDS, 0)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bytes that crossed, and the time from the connection to the last of them, in seconds."""

    size: int
    seconds: float


def connect(port: int) -> socket.socket:
    """A blocking connection whose waits the kernel bounds: that costs no call, as Python's timeouts do."""
    connection = socket.create_connection(("127.0.0.1", port), _WAIT_SECONDS)
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _WAIT)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _WAIT)
    return connection


def upload(port: int, seconds: float) -> Transfer:
    """Send to a sink for so long, and be told by it that every byte arrived."""
    block = bytes(BLOCK)
    size = 0
    start = time.monotonic()
    with connect(port) as connection:
        while time.monotonic() < start + seconds:
            connection.sendall(block)
            size += len(block)
        connection.shutdown(socket.SHUT_WR)
        _check_count(connection.recv(COUNT.size, socket.MSG_WAITALL), size)
    return Transfer(size, time.monotonic() - start)


def download(port: int, seconds: float) -> Transfer:
    """Receive from a source for so long, and be told by it that every byte arrived."""
    block = bytearray(BLOCK)
    view = memoryview(block)
    size = 0
    tail = b""
    start = time.monotonic()
    with connect(port) as connection:
        connection.sendall(SECONDS.pack(seconds))
        while got := connection.recv_into(block):
            size += got
            tail = (tail + bytes(view[max(0, got - COUNT.size) : got]))[-COUNT.size :]
    _check_count(tail, size - COUNT.size)
    return Transfer(size, time.monotonic() - start)


def _check_count(packed: bytes, expected: int) -> None:
    if packed != COUNT.pack(max(expected, 0)):
        raise MeasureError("the transfer ended early or lost bytes")


class EchoClients:
    """Connections to an echo service, each of which has made one round trip to begin with."""

    def __init__(self, port: int, count: int) -> None:
        self._poll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        for _ in range(count):
            connection = connect(port)
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)
            connection.sendall(MESSAGE)
            _check_echo(connection.recv(len(MESSAGE)))

    def __enter__(self) -> EchoClients:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        for connection in self._connections.values():
            connection.close()

    def run(self, seconds: float) -> list[int]:
        """For so long, each connection sends anew as soon as it has its answer: the times, in nanoseconds."""
        # The clients share two or more cores with the tunnels: what they spend keeps the tunnels from being
        # busy. Hence plain descriptors, local names, and no call that could be spared.
        clock, read, write, message = time.monotonic_ns, os.read, os.write, MESSAGE
        size = len(message)
        times: list[int] = []
        sent: dict[int, int] = {}
        for descriptor in self._connections:
            sent[descriptor] = clock()
            write(descriptor, message)
        end = clock() + int(seconds * 1e9)
        while sent:
            ready = self._poll.poll(_WAIT_SECONDS)
            if not ready:
                raise MeasureError(f"no answer in {_WAIT_SECONDS} s")
            for descriptor, _ in ready:
                _check_echo(read(descriptor, size))
                now = clock()
                times.append(now - sent[descriptor])
                if now < end:
                    sent[descriptor] = now
                    write(descriptor, message)
                else:
                    del sent[descriptor]
        return times


def _check_echo(received: bytes) -> None:
    if received != MESSAGE:
        raise MeasureError("an echo did not come back whole")


def tls_context(version: int = SSL.TLS1_3_VERSION) -> SSL.Context:
    """For clients of one version of TLS with the groups that Culvert's own OpenSSL offers; trusts anyone."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_verify(SSL.VERIFY_PEER, _note_certificate)
    return context


def _note_certificate(connection: SSL.Connection, *_: object) -> bool:
    """Asked in full handshakes alone: to resume a session no certificate is shown."""
    connection.set_app_data(True)
    return True


class TlsClient:
    """A blocking TLS connection that resumes `session` if there is one."""

    def __init__(self, port: int, context: SSL.Context, session: SSL.Session | None = None) -> None:
        self._socket = connect(port)
        self._tls = SSL.Connection(context, self._socket)
        self._tls.set_connect_state()
        if session is not None:
            self._tls.set_session(session)
        self._tls.do_handshake()
        if self._tls.get_app_data() is None and session is None:
            raise MeasureError("a full handshake showed no certificate")
        if self._tls.get_app_data() is not None and session is not None:
            raise MeasureError("a session was not resumed")

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def group(self) -> str:
        """The name of the group that the handshake settled on."""
        return self._tls.get_group_name() or "unknown"

    def session(self) -> SSL.Session | None:
        """What can be resumed; in TLS 1.3 only after something was received."""
        return self._tls.get_session()

    def round_trip(self) -> None:
        """Send a message and receive it back."""
        self._tls.sendall(MESSAGE)
        _check_echo(self._tls.recv(len(MESSAGE)))

    def finish(self) -> None:
        """Send close_notify, and wait for that of the peer."""
        self._tls.shutdown()
        with contextlib.suppress(SSL.ZeroReturnError):
            self._tls.recv(1)
            raise MeasureError("a backend sent something that nobody asked for")


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """So many connections to an echo service, by full handshakes and used once, that then say nothing."""
    context = tls_context()
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            clients.enter_context(TlsClient(port, context)).round_trip()
        yield


def handshakes(port: int, seconds: float, version: int, *, resume: bool) -> int:
    """One connection after the other, ended at once and in good order by the client: how many were made."""
    context = tls_context(version)
    session = None
    if resume:
        with TlsClient(port, context) as first:
            first.finish()
            session = first.session()
    end = time.monotonic() + seconds
    made = 0
    while time.monotonic() < end:
        with TlsClient(port, context, session) as client:
            client.finish()
        made += 1
    return made


def s_time(port: int, seconds: int, *, resume: bool) -> int:
    """One connection after the other by `openssl s_time`, each with a request: how many were made.

    Without -www it reads nothing after the handshake, and so gets no ticket to resume in TLS 1.3.
    """
    mode, mark = ("-reuse", "r") if resume else ("-new", "*")
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-tls1_3", mode, "-www", "/"]
    try:
        output = subprocess.run(
            [*command, "-time", str(seconds)],
            capture_output=True,
            text=True,
            timeout=seconds + _WAIT_SECONDS,
            check=True,
        ).stdout
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as failure:
        raise MeasureError(f"openssl s_time failed: {failure}") from failure
    marks = "".join(re.findall(r"^[r*]+$", output, re.MULTILINE))
    made = re.search(r"^(\d+) connections in [\d.]+s;", output, re.MULTILINE)
    if made is None or marks.strip(mark):
        raise MeasureError(f"openssl s_time {mode} made other handshakes than that")
    return int(made[1])
