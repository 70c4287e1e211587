"""A service manager as systemd is one, as far as a daemon sees it: its socket for messages, its launcher."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from types import TracebackType

from .harness import PATIENCE

_LAUNCHER = """
import os, socket, sys

count = sys.argv.index("--")
for fd, text in enumerate(sys.argv[1:count], 3):
    name, kind, where = text.split("=", 2)
    sock = socket.socket(
        socket.AF_UNIX if where.startswith("/") else socket.AF_INET,
        socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM,
    )
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(where if where.startswith("/") else ("127.0.0.1", int(where)))
    if kind == "listen":
        sock.listen(100)
    os.dup2(sock.detach(), fd)
    os.set_inheritable(fd, True)
names = [text.split("=", 1)[0] for text in sys.argv[1:count]]
os.environ.update(LISTEN_FDS=str(len(names)), LISTEN_PID=str(os.getpid()))
if any(names):
    os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.execvp(sys.argv[count + 1], sys.argv[count + 1 :])
"""


def passing(*sockets: str) -> list[str]:
    """A command that runs the command behind it with these sockets, each NAME=KIND=PORT or NAME=KIND=/PATH.

    KIND is `listen`, or what a daemon cannot accept on: `silent`, `datagram`.
    """
    return [sys.executable, "-c", _LAUNCHER, *sockets, "--"]


_HOLDER = """
import os, sys

os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def handing(listening: int) -> list[str]:
    """A command that runs the command behind it with this listening socket, which it has itself."""
    return [sys.executable, "-c", _HOLDER, str(listening)]


class Manager:
    """Hears what a daemon says to NOTIFY_SOCKET, each message as a mapping of its assignments."""

    def __init__(self, address: Path | str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = str(address)
        self._sock.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        self.heard: list[dict[str, str]] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a daemon is to be started with."""
        return {"NOTIFY_SOCKET": self.address}

    def wait(self, name: str, timeout: float = PATIENCE) -> dict[str, str]:
        """The next message with this assignment; those before it are heard too."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            with contextlib.suppress(TimeoutError):
                lines = self._sock.recv(65536).decode().split("\n")
                self.heard.append(dict(line.split("=", 1) for line in lines))
                if name in self.heard[-1]:
                    return self.heard[-1]
        raise AssertionError(f"no {name} in {timeout} s: {self.heard}")

    def catch_up(self) -> None:
        """Hear what was said so far."""
        self._sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._sock.recv(65536)

    def hears_nothing_of(self, name: str, seconds: float) -> bool:
        """Whether no message with this assignment comes for so long."""
        try:
            self.wait(name, seconds)
        except AssertionError:
            return True
        return False

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.close()
