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
        if self.closed:
            raise OSError("a pass phrase is asked for at the start only")
        if not _has_terminal():
            raise OSError("there is no terminal to ask for its pass phrase on")
        try:
            return getpass.getpass(f"Pass phrase for {path}: ").encode()
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
