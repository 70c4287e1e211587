"""What keeps a command from reaching its daemon."""

from __future__ import annotations

from culvert.cli.faults import printable
from culvert.errors import CulvertError


class DaemonError(CulvertError):
    """The daemon cannot be asked or told: `reason` is a sentence; whoever answered may have a part in it."""

    def __init__(self, reason: str) -> None:
        self.reason = printable(reason)

    def __str__(self) -> str:
        return self.reason


class AdminError(DaemonError):
    """The admin endpoint cannot be used."""


class NobodyListensError(AdminError):
    """There is no endpoint at the address."""


class RefusedError(AdminError):
    """The endpoint answered with a status that says no."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class LostError(AdminError):
    """The connection ended when the request had been sent, and before its answer."""


class PidFileError(DaemonError):
    """The pid file, or the process that it names, cannot be used."""
