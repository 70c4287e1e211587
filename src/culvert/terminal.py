"""The master side of a pseudoterminal as a stream, and what is particular to programs behind one.

A terminal begins as a person's: it echoes, and keeps lines until they are whole. A program that wants it raw
sets that up after its start, and drops what has come until then. pppd is one: its peer's first words would go
back to the peer, which takes the line for looped back and gives up. Hence `composed`, before the first byte.
A raw terminal cannot be half closed: where its program does not end by itself, it is hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import termios
from collections.abc import Callable

COMPOSURE = 2.0
"""Seconds that a program has to say something or to set up its terminal, before it is spoken to anyway."""

HANG_UP_AFTER = 2.0
"""Seconds that a program has to end, whose raw terminal has no way to tell it that its input is over."""

UNHEARD = "The program's terminal is raw: a hang-up alone tells it the end of its input"

_LOOK = 0.05
"""Seconds between two looks at a terminal's modes: the kernel tells of no change of them."""


class Terminal:
    """The master side of a pseudoterminal."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._timer: asyncio.TimerHandle | None = None
        self.hang_up: Callable[[], None] | None = None
        """Ends the connection; for a program that cannot be told the end of its input otherwise."""

    def fileno(self) -> int:
        return self._master

    def recv_into(self, buffer: bytearray, /) -> int:
        try:
            return os.readv(self._master, [buffer])
        except OSError as error:
            if error.errno == errno.EIO:  # nobody holds the slave any more (pty(7))
                return 0
            raise

    def send(self, data: memoryview, /) -> int:
        try:
            return os.write(self._master, data)
        except OSError as error:
            if error.errno == errno.EIO:
                return len(data)
            raise

    def shutdown(self, how: int, /) -> None:
        """Tell the program the end of its input: typed, or after HANG_UP_AFTER as a hang-up."""
        if not self._type_end() and self.hang_up is not None:
            self._timer = asyncio.get_running_loop().call_later(HANG_UP_AFTER, self._end_again)

    def _end_again(self) -> None:
        if not self._type_end() and self.hang_up is not None:
            self.hang_up()

    def _type_end(self) -> bool:
        """Type the end-of-file character; False where the terminal knows none (termios(3), ICANON)."""
        with contextlib.suppress(OSError, termios.error):
            attributes = termios.tcgetattr(self._master)
            if not attributes[3] & termios.ICANON:
                return False
            # Twice: the first one only hands over a line that is not finished.
            os.write(self._master, attributes[6][termios.VEOF] * 2)
        return True

    async def composed(self) -> None:
        """Return once the program can be spoken to: it has said something, set up its terminal, or is silent
        for COMPOSURE.
        """
        loop = asyncio.get_running_loop()
        before = self._modes()
        speaks = loop.create_future()
        loop.add_reader(self._master, _settle, speaks)
        try:
            for _ in range(round(COMPOSURE / _LOOK)):
                await asyncio.wait([speaks], timeout=_LOOK)
                if speaks.done() or self._modes() != before:
                    return
        finally:
            loop.remove_reader(self._master)

    def _modes(self) -> list[object] | None:
        try:
            return termios.tcgetattr(self._master)
        except termios.error:
            return None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.hang_up = None  # it holds the connection, which holds this
        if self._master >= 0:
            os.close(self._master)
            self._master = -1


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
