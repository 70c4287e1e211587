"""Signals as readiness of a descriptor: handlers that only write, for a loop that acts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What ends the daemon: the first one in good order, the second one at once."""


class SignalPipe:
    """Signals as bytes on a pipe: it holds 65,536 of them, a socket pair is full after some hundred.

    Those of one number that wait together are one, as in the kernel, but for the `counted` ones: of those, a
    second one has a meaning.
    """

    def __init__(self, numbers: Iterable[int], counted: Iterable[int] = ()) -> None:
        self._counted = frozenset(counted)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _take_note)

    def fileno(self) -> int:
        return self._reader

    def read(self) -> list[int]:
        """The numbers of the signals that arrived, in their order."""
        numbers: list[int] = []
        for number in os.read(self._reader, 4096):
            if number in self._counted or number not in numbers:
                numbers.append(number)
        return numbers

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def _take_note(number: int, frame: object) -> None:
    """Do nothing: the interpreter has written the number to the pipe, and the loop acts on it."""


def hold_back_ends() -> None:
    """Block the signals that end the daemon, which has ended: one that comes now would change its status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def signal_name(number: int) -> str:
    """The name of a signal; the real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
