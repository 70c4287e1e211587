"""Connected sockets for tests, and what can be done to them within a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Iterator


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback, which unlike a socket pair knows RST; non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for end in (one, other):
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair; non-blocking."""
    pair = socket.socketpair()
    for end in pair:
        end.setblocking(False)
    return pair


def unread(sock: socket.socket) -> int:
    """How many bytes stand in a socket's receive queue."""
    answer = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


@contextlib.contextmanager
def closing(*sockets: socket.socket) -> Iterator[None]:
    """Closes them, whatever the test did to them before."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def fill(sock: socket.socket) -> int:
    """Send until nothing more is taken; how much was."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += sock.send(bytes(65536))
    return total


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes, or what came before the end."""
    data = bytearray()
    while len(data) < count and (
        more := await asyncio.get_running_loop().sock_recv(sock, min(65536, count - len(data)))
    ):
        data += more
    return bytes(data)


async def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    data = bytearray()
    while more := await asyncio.get_running_loop().sock_recv(sock, 65536):
        data += more
    return bytes(data)
