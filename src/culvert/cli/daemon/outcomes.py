"""How a command about a daemon ends."""

from __future__ import annotations

import enum


class Outcome(enum.IntEnum):
    """The exit status; 2 is a wrong use. 3 and 4 are those of systemctl and of init scripts."""

    DONE = 0
    FAILED = 1
    NOT_RUNNING = 3
    UNKNOWN = 4
    NOT_YET = 5
    """It runs and is not ready, or is still at what it was told."""
