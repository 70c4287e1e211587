"""What a service manager is told of the daemon: the protocol of sd_notify(3), for systemd and its like.

A message is one datagram to the socket that NOTIFY_SOCKET names. That is connected to at the start, so it
needs no path behind `chroot`, and no rights after `setuid`. Where nobody asked to be told, nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

SEND_PATIENCE = 1.0
"""Seconds that a message may wait for a manager that is busy; the daemon must not wait longer for it."""

STOP_MARGIN = 10.0
"""Seconds beyond the drain that a stop may take: workers that are ended, and those that must be killed."""

_SECONDS_LIMIT = 10**9
"""More would not fit into the manager's microseconds."""


class Notifier:
    """The connection to the service manager; `complain` is called with what could not be told, once."""

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        """`address` is NOTIFY_SOCKET's value; `watchdog` the seconds within which `alive` is expected."""
        self.watchdog = watchdog if address else None
        self.complain: Callable[[str], None] = _say_nothing
        self._address = address or ""
        self._socket: socket.socket | None = None
        self._complained = False
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(SEND_PATIENCE)
            with contextlib.suppress(OSError, ValueError):  # told by the first message
                self._connect(self._socket)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Notifier:
        """What the environment asks for; the variables are removed, for programs must not speak for us."""
        address = environment.pop("NOTIFY_SOCKET", None)
        period = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", "")
        watchdog = None
        if period.isascii() and period.isdigit() and int(period) > 0 and meant in ("", str(os.getpid())):
            watchdog = int(period) / 1_000_000
        return cls(address, watchdog)

    def ready(self, status: str) -> None:
        """The daemon serves, for the first time or after a reload, be that one that failed."""
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={_line(status)}")

    def introduce(self, pid: int) -> None:
        """The daemon is another process: to be told by the one that the manager started, as it ends."""
        self._send(f"MAINPID={pid}", "READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=Reloading the configuration")

    def stopping(self, patience: float) -> None:
        """The daemon ends, and takes `patience` seconds at most to drain."""
        seconds = min(patience, _SECONDS_LIMIT) + STOP_MARGIN
        self._send("STOPPING=1", "STATUS=Stopping", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def status(self, text: str) -> None:
        """One line for people."""
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """The daemon does its work (the watchdog)."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Let go of the socket: in a process that is not to speak for the daemon."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> None:
        if self._socket is None:
            return
        message = "\n".join(assignments).encode("utf-8", "replace")
        try:
            try:
                self._socket.send(message)
            except TimeoutError:
                raise  # it is there, and does not read
            except OSError:  # not there at the start, or a manager that was replaced
                self._connect(self._socket)
                self._socket.send(message)
        except (OSError, ValueError) as error:
            if not self._complained:
                self._complained = True
                self.complain(f"Cannot tell the service manager at NOTIFY_SOCKET {self._address}: {error}")

    def _connect(self, sock: socket.socket) -> None:
        if not self._address.startswith(("/", "@")):
            raise ValueError("expected a path, or @ and an abstract name")
        sock.connect("\0" + self._address[1:] if self._address.startswith("@") else self._address)


def _line(text: str) -> str:
    """A value must not be able to end its line, and so to begin another assignment."""
    return " ".join(text.split())


def _say_nothing(text: str) -> None:
    """Until somebody wants to hear it."""
