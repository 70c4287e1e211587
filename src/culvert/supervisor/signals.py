"""Signals as readiness of a descriptor: handlers that only write, for a loop that acts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable


class SignalPipe:
    """Signals as bytes on a pipe: it holds 65,536 of them, a socket pair is full after some hundred."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _take_note)

    def fileno(self) -> int:
        return self._reader

    def read(self) -> bytes:
        """The numbers of the signals that arrived, a byte each."""
        return os.read(self._reader, 4096)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def _take_note(number: int, frame: object) -> None:
    """Do nothing: the interpreter has written the number to the pipe, and the loop acts on it."""


def hold_back_ends() -> None:
    """Block the signals that end the daemon, which has ended: one that comes now would change its status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))


def signal_name(number: int) -> str:
    """The name of a signal; the real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
