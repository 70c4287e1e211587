"""The daemon's own end: what is waited for, how long, and what became of it.

The supervisor and the daemon of one process do the work in their own ways; they say the same of it.
"""

from __future__ import annotations

import math
import time

from culvert.log import Channel
from culvert.privileges import ExitStatus


class Drain:
    """One drain, from the first signal to the last connection; `deadline` is of the monotonic clock.

    `patience` is `drainTimeout` in seconds; with 0 nothing is waited for, and connections that are ended were
    not ended before their time.
    """

    def __init__(self, log: Channel, patience: float) -> None:
        self._log = log
        self._patience = patience
        self._told = self._hurried = False
        self._cut = self._waited_for = 0
        self.deadline = time.monotonic() + patience

    @property
    def waits(self) -> bool:
        """Whether connections have time left to finish."""
        return self._patience > 0 and not self._hurried

    def waiting(self, connections: int) -> str:
        """Log, once, what is waited for; returns the line."""
        self._waited_for += connections
        line = "Stopping: no connection is open"
        if connections:
            until = time.strftime("%H:%M:%S", time.localtime(time.time() + self.deadline - time.monotonic()))
            line = (
                f"Stopping: waiting for {connections} connection(s) to finish, at most "
                f"{self._patience:g} s, until {until}"
            )
        if not self._told:
            self._log.notice(line)
        self._told = True
        return line

    def expire(self) -> None:
        """The time is over."""
        self._hurry("drainTimeout exceeded")

    def force(self) -> None:
        """Another signal came."""
        self._hurry("Told to stop once more")

    def _hurry(self, reason: str) -> None:
        if self.waits:
            self._log.notice(f"{reason}: ending the connections that are left")
        self._hurried = True
        self.deadline = math.inf

    def cut(self, connections: int) -> None:
        """Take note that this many were ended before they had finished."""
        self._cut += connections

    def conclude(self) -> ExitStatus:
        """Log how it went, and give the status to exit with."""
        if self._patience == 0:
            return ExitStatus.OK
        if self._cut:
            self._log.notice(f"{self._cut} connection(s) were ended before they had finished")
            return ExitStatus.CUT_SHORT
        if self._waited_for:
            self._log.notice("All connections have finished")
        return ExitStatus.OK
