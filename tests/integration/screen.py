"""A terminal with somebody who looks at it: a program on a pseudoterminal, and its screen by pyte."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import pyte

from .harness import PATIENCE, require

CTRL_C = b"\x03"
CTRL_Z = b"\x1a"


class Screen:
    """Runs a command on a terminal of its own, until the end of the context."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        columns: int = 120,
        lines: int = 30,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.resize(columns, lines, tell=False)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [require("setsid"), "--ctty", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """What stands on the screen now."""
        self._read(0)
        return "\n".join(line.rstrip() for line in self._screen.display)

    @property
    def modes(self) -> list[Any]:
        """The terminal's modes, as the program has set them."""
        return termios.tcgetattr(self._master)

    def press(self, keys: str | bytes) -> None:
        """Type these."""
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, columns: int, lines: int, *, tell: bool = True) -> None:
        """Change the terminal's size, as a window's edge does."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if tell:
            os.killpg(os.tcgetpgrp(self._master), signal.SIGWINCH)

    def wait(self, pattern: str, *, gone: bool = False, timeout: float = PATIENCE) -> str:
        """The screen once the pattern stands on it, or not any more where it is to be `gone`."""
        deadline = time.monotonic() + timeout
        while bool(re.search(pattern, self.text)) == gone:
            assert time.monotonic() < deadline, f"{pattern!r} is not as expected on:\n{self.text}"
            self._read(0.2)
        return self.text

    def end(self, timeout: float = PATIENCE) -> int:
        """Wait for the program's end: its exit status."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def _read(self, timeout: float) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while select.select([self._master], [], [], timeout)[0]:
                data = os.read(self._master, 65536)
                self.raw += data
                self._stream.feed(data)
                timeout = 0

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._master)
