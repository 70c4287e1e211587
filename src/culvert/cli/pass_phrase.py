"""Asks for the pass phrase of an encrypted key, on the terminal and while the daemon starts."""

from __future__ import annotations

import getpass
from pathlib import Path

_TERMINAL = Path("/dev/tty")


class Prompt:
    """What unlocks keys: called with a file's path, it returns what the operator typed.

    Raises OSError where nobody can be asked: without a terminal, or once `closed` is set, for a running
    daemon must not stand still before a prompt.
    """

    def __init__(self) -> None:
        self.closed = False

    def __call__(self, path: str) -> bytes:
        return self._ask(f"Pass phrase for {path}: ")

    def choose(self, path: str) -> bytes:
        """A new pass phrase for a file, typed twice. Raises OSError also where it is empty or differs."""
        phrase = self._ask(f"New pass phrase for {path}: ")
        if not phrase:
            raise OSError("an empty pass phrase protects nothing")
        if self._ask("The same once more: ") != phrase:
            raise OSError("the two pass phrases differ")
        return phrase

    def _ask(self, prompt: str) -> bytes:
        if self.closed:
            raise OSError("a pass phrase is asked for at the start only")
        if not _has_terminal():
            raise OSError("there is no terminal to ask for its pass phrase on")
        try:
            return getpass.getpass(prompt).encode()
        except EOFError:
            raise OSError("no pass phrase was given") from None
        except UnicodeDecodeError:
            raise OSError("what was typed is no text in this locale") from None


def _has_terminal() -> bool:
    """Without one getpass would fall back on standard input, and echo what is typed."""
    try:
        with _TERMINAL.open("r+b", buffering=0):
            return True
    except OSError:
        return False
