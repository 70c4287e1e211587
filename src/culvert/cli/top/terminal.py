"""The terminal while the display is on it, and as it was before."""

from __future__ import annotations

import os
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
"""The other screen, empty, without a cursor and without wrapping: a line that was made for a wider window is
cut (xterm's control sequences; every terminal of today has them).
"""

_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


class Screen:
    """A terminal by its descriptors, for reading keys and for showing lines."""

    def __init__(self, keys: int, shown: int) -> None:
        self._keys = keys
        self._shown = shown
        self._before: list[Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; a terminal that does not know has 80 by 24."""
        found = os.get_terminal_size(self._shown)
        return (found.columns or 80, found.lines or 24)

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def take(self) -> None:
        """Keys come as they are pressed, and are not shown; signals of the keyboard stay."""
        self._before = termios.tcgetattr(self._keys)
        modes = termios.tcgetattr(self._keys)
        modes[3] &= ~(termios.ECHO | termios.ICANON)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._keys, termios.TCSANOW, modes)
        self._write(_ENTER)

    def give_back(self) -> None:
        """All as it was; a terminal that is gone wants nothing."""
        before, self._before = self._before, None
        if before is None:
            return
        try:
            self._write(_LEAVE)
            termios.tcsetattr(self._keys, termios.TCSANOW, before)
        except (OSError, termios.error):
            return

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of what there is. Raises OSError."""
        body = "\x1b[K\r\n".join(lines)
        self._write(f"\x1b[H{body}\x1b[K\x1b[J")

    def read(self) -> bytes:
        """Bytes of keys; empty at the terminal's end."""
        try:
            return os.read(self._keys, 1024)
        except OSError:
            return b""

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._shown, data) :]
