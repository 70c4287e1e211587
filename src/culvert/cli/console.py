"""Standard output as the commands use it: Rich, with colours on a terminal, plain text anywhere else."""

from __future__ import annotations

import io
import sys

from rich.console import Console


def open_console() -> Console:
    """A console on standard output that takes text literally, and never fails on a character."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Console(highlight=False, markup=False, emoji=False)
