"""How long the supervisor waits for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """The supervisor's bounds in seconds.

    `ready` runs from a worker's fork to its READY: loading modules and entering the jail, on a busy machine.
    `drain` runs from DRAIN to DRAINING: past it, a reload is announced all the same. `stop` runs from STOP
    to SIGKILL. A worker that died is replaced after `pause_first`, which doubles up
    to `pause_last` with each one that dies before it is `settled`.
    """

    ready: float = 30.0
    drain: float = 2.0
    stop: float = 5.0
    pause_first: float = 0.1
    pause_last: float = 30.0
    settled: float = 60.0


TIMING = Timing()

LONGEST_WAIT = 86400.0
"""Seconds that the loop waits at once: poll(2) counts milliseconds in a C int, a drain may last longer."""
