"""`socket = a|l|r:NAME=VALUE`, asked of the daemon's own sockets by way of pidfd_getfd(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from .certificates import Certificates
from .harness import Culvert
from .peers import Peers, client_context

Start = Callable[..., Culvert]

PIDFD_GETFD = 438
"""The system call's number on every Linux architecture but Alpha."""


def sockets_of(pids: list[int]) -> list[socket.socket]:
    """Duplicates of the TCP sockets that these processes hold; skips the test where that is forbidden."""
    found: list[socket.socket] = []
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as handles, contextlib.ExitStack() as undo:
        for pid in pids:
            handle = os.pidfd_open(pid)
            handles.callback(os.close, handle)
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names are all that is needed
                if not os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):  # noqa: PTH115
                    continue
                descriptor = libc.syscall(PIDFD_GETFD, handle, int(name), 0)
                if descriptor < 0:
                    pytest.skip(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
                found.append(undo.enter_context(socket.socket(fileno=descriptor)))
        undo.pop_all()
    return found


class Sides:
    """The three sockets of one served connection, inside the daemon."""

    def __init__(self, culvert: Start, peers: Peers, certificates: Certificates, options: str) -> None:
        backend = peers.listen()
        daemon = culvert(
            f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{backend.port}\n{options}"
            f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
        )
        tls = peers.tls(daemon.port("s"), client_context())
        plain = backend.accept()
        self.opened = sockets_of(daemon.tree())
        self.accept = self._find(local=daemon.port("s"), remote=None)
        self.local = self._find(local=daemon.port("s"), remote=tls.sock.getsockname()[1])
        self.remote = self._find(local=plain.getpeername()[1], remote=backend.port)

    def _find(self, local: int, remote: int | None) -> socket.socket:
        for sock in self.opened:
            if sock.family != socket.AF_INET or sock.getsockname()[1] != local:
                continue
            try:
                peer = sock.getpeername()[1]
            except OSError:
                peer = None
            if peer == remote:
                return sock
        raise AssertionError(f"the daemon has no socket {local} -> {remote}")


@pytest.fixture
def sides(culvert: Start, peers: Peers, certificates: Certificates) -> Iterator[Callable[[str], Sides]]:
    """Serves one connection with these options and gives the daemon's sockets for it."""
    served: list[Sides] = []

    def serve(options: str = "") -> Sides:
        served.append(Sides(culvert, peers, certificates, options))
        return served[-1]

    yield serve
    for one in served:
        for sock in one.opened:
            sock.close()


def linger(sock: socket.socket) -> tuple[int, int]:
    on, seconds = struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    return on, seconds


def test_the_defaults(sides: Callable[..., Sides]) -> None:
    """a:SO_REUSEADDR, l:TCP_NODELAY, r:TCP_NODELAY, and keep-alive on both sides."""
    found = sides()
    assert found.accept.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    for sock in (found.local, found.remote):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        probing = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, name) for name in probing] == [120, 30, 4]


def test_keep_alive_can_be_turned_off_on_either_side(sides: Callable[..., Sides]) -> None:
    found = sides("socket = r:SO_KEEPALIVE=0\nsocket = l:TCP_KEEPIDLE=7\n")
    assert found.remote.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert found.local.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert found.local.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7


def test_each_side_has_its_own_options(sides: Callable[..., Sides]) -> None:
    found = sides(
        "socket = a:SO_RCVBUF=30000\n"
        "socket = l:TCP_KEEPIDLE=123\n"
        "socket = l:SO_LINGER=1:7\n"
        "socket = r:TCP_NODELAY=no\n"
        "socket = r:SO_LINGER=1:60\n"
    )
    assert found.accept.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 60000
    assert found.local.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert found.local.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 123
    assert linger(found.local) == (1, 7)
    assert found.local.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert found.remote.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 120
    assert found.remote.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert linger(found.remote) == (1, 60)


def test_a_device_and_times(sides: Callable[..., Sides]) -> None:
    found = sides("socket = r:SO_BINDTODEVICE=lo\nsocket = l:SO_RCVTIMEO=3:500000\n")
    assert found.remote.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
    seconds, microseconds = struct.unpack(
        "ll", found.local.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
    )
    assert seconds == 3
    assert microseconds >= 500000
