"""Runs the command line in a process of its own, as the user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

TIME_LIMIT = 30.0


def culvert(*arguments: str, terminal_width: int = 200) -> subprocess.CompletedProcess[str]:
    """What `culvert ARGUMENTS` writes and returns; its output goes to pipes, so it is plain."""
    return execute([sys.executable, "-m", "culvert", *arguments], terminal_width)


def execute(command: Sequence[str], terminal_width: int = 200) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(terminal_width), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
        env=environment,
    )
