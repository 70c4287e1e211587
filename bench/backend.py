"""The plain service behind a tunnel, a process of its own so that its CPU is not counted.

Started as `python backend.py KIND DESCRIPTOR` with a listening socket; it ends when its standard input does,
so that it never outlives the bench.

    echo     gives back what it gets, on any number of connections
    answer   reads a request of one piece, answers it if there is one, and closes (one at a time)
    sink     reads to the end, then answers with the number of bytes it got (one at a time)
    source   is asked for a number of seconds, sends as long, ends with the number of bytes sent before
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

BLOCK = 256 * 1024
"""Bytes per call: large, so that the ends of a transfer cost little beside the tunnels."""
COUNT = struct.Struct(">Q")
SECONDS = struct.Struct(">d")


@contextlib.contextmanager
def running(kind: str) -> Iterator[int]:
    """A backend of this kind for the time of the block; gives its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port: int = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).resolve()), kind, str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    try:
        yield port
    finally:
        process.kill()
        process.communicate()


def _echo(listener: socket.socket) -> None:
    # Every call here keeps the tunnels from being busy, so those on the way of a byte are the fewest.
    read, write, listening = os.read, os.write, listener.fileno()
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listening:
                accepted = listener.accept()[0].detach()
                poll.register(accepted, select.EPOLLIN)
                continue
            try:
                data = read(descriptor, 4096)
                if data:
                    write(descriptor, data)
                else:
                    os.close(descriptor)
            except ConnectionError:
                os.close(descriptor)


def _answer(listener: socket.socket) -> None:
    while True:
        with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
            if connection.recv(4096):
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


def _sink(listener: socket.socket) -> None:
    block = bytearray(BLOCK)
    while True:
        with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
            total = 0
            while got := connection.recv_into(block):
                total += got
            connection.sendall(COUNT.pack(total))


def _source(listener: socket.socket) -> None:
    block = bytes(BLOCK)
    while True:
        with listener.accept()[0] as connection, contextlib.suppress(ConnectionError):
            asked = connection.recv(SECONDS.size, socket.MSG_WAITALL)
            if len(asked) < SECONDS.size:
                continue
            end = time.monotonic() + SECONDS.unpack(asked)[0]
            total = 0
            while time.monotonic() < end:
                connection.sendall(block)
                total += len(block)
            connection.sendall(COUNT.pack(total))


_KINDS: dict[str, Callable[[socket.socket], None]] = {
    "echo": _echo,
    "answer": _answer,
    "sink": _sink,
    "source": _source,
}


def _end_with_standard_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    _KINDS[sys.argv[1]](socket.socket(fileno=int(sys.argv[2])))
