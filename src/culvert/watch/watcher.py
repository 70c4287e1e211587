"""The watching process as its parent holds it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterable

from culvert.control import MESSAGE_LIMIT

WATCHING = b"watching"
CHANGED = b"changed"
FAILED = b"failed "
"""What the process says, a datagram each; behind the last one stands what failed."""

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); from culvert.watch.process import main; main()"
)
"""Its modules are those of the parent, wherever that found them."""

_DEAF_TO = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Meant for the daemon, though a terminal's Ctrl-C and an init's SIGTERM reach all of its processes."""


class Watcher:
    """One watching process, from its start to `end`."""

    def __init__(self, places: Iterable[str]) -> None:
        """Start it. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.channel = ours
        self._status: int | None = None
        with theirs:
            try:
                self.pid = _spawn(theirs.fileno(), sorted(places))
            except BaseException:
                ours.close()
                raise

    def receive(self) -> bytes:
        """The next message; empty once the process has ended."""
        try:
            return self.channel.recv(MESSAGE_LIMIT)
        except ConnectionError:
            return b""

    def reaped(self, status: int) -> None:
        """Take note that whoever reaps all children has reaped this one; `status` is of waitpid(2)."""
        self._status = status

    def end(self) -> int:
        """End the process and await its end; returns its exit status, or minus the signal that killed it."""
        self.channel.close()
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self._status)


def _spawn(channel: int, places: list[str]) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _PROGRAM, "\n".join(sys.path), *places],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, channel, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
            setsigmask=_DEAF_TO,
        )
    finally:
        os.close(null)
