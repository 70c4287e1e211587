"""The terminal of a program that asks for a pass phrase, and who types on it."""

from __future__ import annotations

import os
import pty
import select
import time

from .harness import PATIENCE


class Terminal:
    """The far end of a pseudoterminal."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.shown = ""

    def answer(self, prompt: str, line: str) -> None:
        """Waits until `prompt` is shown, then types a line."""
        already = len(self.shown)
        deadline = time.monotonic() + PATIENCE
        while prompt not in self.shown[already:]:
            assert time.monotonic() < deadline, f"{prompt!r} was not asked: {self.shown!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                self.shown += os.read(self._master, 4096).decode()
        os.write(self._master, f"{line}\n".encode())

    def close(self) -> None:
        """Closes both ends."""
        os.close(self._master)
        os.close(self.slave)
