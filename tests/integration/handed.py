"""Connections that are handed to a process of their own: the descriptors, and one run of Culvert on them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import cast

from .certificates import Certificates
from .daemon import command
from .harness import HEADER, PATIENCE, LogLines
from .peers import PlainPeer, TlsPeer, client_context, server_context

ARRANGEMENTS = (
    "tcp",
    "socketpair",
    "pipes",
    "socket in, pipe out",
    "pipe in, socket out",
    "two sockets",
)


class Duplex:
    """The launcher's end of a connection: one descriptor to read and one to write, either of any kind."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing

    def recv(self, limit: int) -> bytes:
        """Some bytes, or none at the end; waits for a bounded time."""
        assert select.select([self.reading], [], [], PATIENCE)[0], "nothing came"
        return os.read(self.reading, limit)

    def sendall(self, data: bytes) -> None:
        """All of it; somebody must read it in time."""
        rest = memoryview(data)
        while rest:
            assert select.select([], [self.writing], [], PATIENCE)[1], "nothing is taken"
            rest = rest[os.write(self.writing, rest[: select.PIPE_BUF]) :]

    def shutdown(self, how: int) -> None:
        """Ends what is sent."""
        if stat.S_ISSOCK(os.fstat(self.writing).st_mode):
            with socket.socket(fileno=os.dup(self.writing)) as sock:
                sock.shutdown(how)
        else:
            os.close(self.writing)
            self.writing = -1

    def close(self) -> None:
        """Closes what is open."""
        for fd in {self.reading, self.writing} - {-1}:
            os.close(fd)
        self.reading = self.writing = -1

    def as_plain(self) -> PlainPeer:
        """The end that knows nothing of TLS."""
        return PlainPeer(cast(socket.socket, self))

    def as_tls(self, certificates: Certificates, *, server: bool = False) -> TlsPeer:
        """The end that speaks TLS, before its handshake."""
        context = (
            server_context(certificates.server) if server else client_context(trust=certificates.ca.cert)
        )
        return TlsPeer(cast(socket.socket, self), context, server=server)


def arrange(kind: str) -> tuple[Duplex, int, int]:
    """The launcher's end, and the descriptors for the standard input and output of a process."""
    if kind in ("tcp", "socketpair"):
        ours, theirs = socket.socketpair() if kind == "socketpair" else tcp_pair()
        fd, own = theirs.detach(), ours.detach()
        return Duplex(own, own), fd, fd
    first, _, second = kind.partition(", ")
    into_socket = "socket" in first
    out_socket = "socket" in (second or first)
    stdin, writing = _one_way_socket() if into_socket else os.pipe()
    reading, stdout = _one_way_socket() if out_socket else os.pipe()
    return Duplex(reading, writing), stdin, stdout


def _one_way_socket() -> tuple[int, int]:
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A client's socket and the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), PATIENCE)
        accepted, _ = listening.accept()
    return client, accepted


class Handed:
    """One run of `culvert` on the descriptors `stdin` and `stdout`, which are closed here once it runs.

    `services` is the configuration behind HEADER. Its log is its standard error, unless `stderr` takes that.
    """

    def __init__(
        self,
        folder: Path,
        services: str,
        stdin: int,
        stdout: int,
        *,
        header: str = HEADER,
        argv: Callable[[Path], Sequence[str]] = lambda path: command("run", path),
        stderr: int = subprocess.PIPE,
        keep: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        path = folder / "inetd.conf"
        path.write_text(f"{header}{services}")
        self.process = subprocess.Popen(
            argv(path),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            pass_fds=pass_fds,
            cwd=folder,
        )
        if not keep:
            for fd in {stdin, stdout}:
                os.close(fd)
        self.log = LogLines(self.process.stderr) if self.process.stderr is not None else None

    def await_log(self, pattern: str) -> None:
        """Waits for a line of the log."""
        assert self.log is not None
        self.log.wait(pattern)

    def wait(self, status: int = 0) -> list[str]:
        """Waits for its end; gives the lines of its log."""
        found = self.process.wait(PATIENCE)
        lines: list[str] = []
        if self.log is not None:
            self.log.wait_end()
            lines = self.log.lines
        assert found == status, "\n".join(lines)
        assert not [line for line in lines if "Traceback" in line or "fault of culvert" in line]
        return lines

    def __enter__(self) -> Handed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        if self.log is not None and not self.log.ended:
            self.log.wait_end()
