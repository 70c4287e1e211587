"""Local programs as the plain side of a connection: exec on a socket pair, or on a pseudoterminal.

A program gets its three standard descriptors and no other, default signal dispositions and a session of
its own. One that still runs when its connection broke hears the hang-up (SIGHUP); one that outlives a
connection that ended in good order is left alone, as inetd would, until the worker ends (`Programs.end`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping

from culvert.config.model import Service
from culvert.descriptors import DescriptorLimit
from culvert.errors import BackendError, os_reason
from culvert.terminal import Terminal

_WINDOW_SIZE = struct.pack("HHHH", 24, 80, 0, 0)
_TIOCSPTLCK = 0x40045431
"""Unlocks the slave (ioctl_tty(2)); the termios module has names for neither."""

_TIOCGPTPEER = 0x5441
"""Opens the slave of a pseudoterminal without a path (ioctl_tty(2), Linux 4.13): a jail may have none."""


class ProgramSocket:
    """Our end of the pair. That the program has gone is its end of file, and no error."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv_into(self, buffer: bytearray, /) -> int:
        try:
            return self._socket.recv_into(buffer)
        except ConnectionResetError:  # it exited with input that it did not read
            return 0

    def send(self, data: memoryview, /) -> int:
        try:
            return self._socket.send(data)
        except (BrokenPipeError, ConnectionResetError):  # it has exited: there is nobody to read this
            return len(data)

    def shutdown(self, how: int, /) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()


class Program:
    """A running program and our end of its standard descriptors."""

    def __init__(self, process: subprocess.Popen[bytes], stream: ProgramSocket | Terminal) -> None:
        self._process = process
        self.stream = stream
        self.on_exit: Callable[[], None] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal's number; None while it runs."""
        return self._process.returncode

    def reap(self) -> None:
        """Collect the exit status of a program that has ended."""
        self._process.wait()
        if self.on_exit is not None:
            self.on_exit()

    def signal(self, number: int) -> None:
        """Send a signal to the program and what it started, as long as it runs."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


class Programs:
    """The programs of one worker: started, watched and reaped."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environment: Mapping[str, str],
        limit: DescriptorLimit | None = None,
    ) -> None:
        """`limit` is this process's, where programs are to get another one."""
        self._loop = loop
        self._environment = dict(environment)
        self._limit = limit
        self._running: dict[int, Program] = {}

    def start(self, service: Service, variables: Mapping[str, str]) -> Program:
        """Run the service's `exec`, with `variables` added to its environment. Raises BackendError."""
        environment = self._environment | dict(variables)
        try:
            program = (_on_terminal if service.pty else _on_socket)(service, environment, self._limit)
        except OSError as error:
            raise BackendError(f"Cannot execute {service.exec}: {os_reason(error)}") from None
        watcher = os.pidfd_open(program.pid)
        self._running[watcher] = program
        self._loop.add_reader(watcher, self._exited, watcher)
        return program

    def end(self) -> None:
        """The worker ends: hang up on the programs that are left."""
        for watcher, program in self._running.items():
            self._loop.remove_reader(watcher)
            os.close(watcher)
            program.signal(signal.SIGHUP)
            program.signal(signal.SIGTERM)
        self._running.clear()

    def _exited(self, watcher: int) -> None:
        self._loop.remove_reader(watcher)
        os.close(watcher)
        self._running.pop(watcher).reap()


def _arguments(service: Service) -> list[str]:
    return list(service.exec_args) or [str(service.exec)]


def _on_socket(service: Service, environment: Mapping[str, str], limit: DescriptorLimit | None) -> Program:
    ours, theirs = socket.socketpair()

    def execute(prepare: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            _arguments(service),
            executable=service.exec,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=theirs.fileno(),
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509
        )

    with theirs:
        try:
            process = execute() if limit is None else _limited(execute, limit)
        except BaseException:
            ours.close()
            raise
    ours.setblocking(False)
    return Program(process, ProgramSocket(ours))


def _limited(
    execute: Callable[[Callable[[], None] | None], subprocess.Popen[bytes]], limit: DescriptorLimit
) -> subprocess.Popen[bytes]:
    """Start a program under the limit that it is to have.

    It is lowered here for that moment, as what is done in the child would cost it its vfork(2): 4 ms in
    place of 0.6. That leaves no room for a pipe where this process has more open than the program may.
    """
    try:
        with limit.lowered():
            return execute(None)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    return execute(limit.lower)


def _on_terminal(service: Service, environment: Mapping[str, str], limit: DescriptorLimit | None) -> Program:
    def begin() -> None:
        _take_terminal()
        if limit is not None:
            limit.lower()

    try:
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise BackendError(f"Cannot open a pseudoterminal, /dev/ptmx: {os_reason(error)}") from None
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        fcntl.ioctl(master, termios.TIOCSWINSZ, _WINDOW_SIZE)
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            process = subprocess.Popen(
                _arguments(service),
                executable=service.exec,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment,
                start_new_session=True,
                preexec_fn=begin,  # noqa: PLW1509
            )
        finally:
            os.close(slave)
        os.set_blocking(master, False)
    except BaseException:
        os.close(master)
        raise
    return Program(process, Terminal(master))


def _take_terminal() -> None:
    """In the child, a session leader by now: make standard input the controlling terminal (ioctl_tty(2))."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
