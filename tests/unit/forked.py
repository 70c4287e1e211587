"""Pieces of a test that run in a process of their own: changes that a process cannot take back."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

PATIENCE = 20.0


def bound_life() -> None:
    """End this process by a signal if it outlives every patience: a failed test leaves nothing behind."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(2 * PATIENCE))


def in_child(body: Callable[[], object]) -> tuple[int, str]:
    """Run `body` in a forked process: its exit status (0 unless it raised) and what was raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            bound_life()
            body()
            status = 0
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    os.close(writer)
    said = read_to_end(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def read_to_end(fd: int) -> str:
    """All that comes until no process holds the other end; `fd` is closed."""
    deadline = time.monotonic() + PATIENCE
    received = b""
    while True:
        assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], "a process goes on"
        part = os.read(fd, 4096)
        if not part:
            os.close(fd)
            return received.decode()
        received += part
