"""How the process that runs the daemon stands in the system: apart from its terminal, and with a pid file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from culvert import privileges
from culvert.config.model import Foreground, GlobalOptions
from culvert.errors import os_reason
from culvert.jail import Place
from culvert.log import Channel
from culvert.privileges import ExitStatus, PidFile, StartReport


class Standing:
    """What the options ask for in this, from `detach` to `give_up`."""

    def __init__(self) -> None:
        self.report: StartReport | None = None
        """The way to a process that waits for the start of a daemon."""
        self._pid_file: PidFile | None = None
        self._home: Path | None = None

    def detach(self, options: GlobalOptions, introduce: Callable[[int], None]) -> None:
        """Become a daemon where asked; `introduce` is told its pid before. Raises ConfigurationError and
        OSError.
        """
        if options.pid:
            self._pid_file = PidFile(Place(options.chroot, options.pid), options.locations.get("pid"))
        if options.foreground is Foreground.NO:
            self._home = privileges.working_directory()
            self.report = privileges.daemonize(ExitStatus.FAILED_START, introduce)

    def write_pid(self) -> None:
        """Write the pid file, once signals are heeded, for who reads it may send one. Raises as `detach`."""
        if self._pid_file is not None:
            self._pid_file.create()

    def at_home(self) -> contextlib.AbstractContextManager[None]:
        """In the directory of the start, where relative paths mean what they meant then."""
        return privileges.back_in(self._home)

    def send(self, status: ExitStatus, reason: str) -> None:
        """Tell the process that waits, if any, what came of the start."""
        if self.report is not None:
            self.report.send(status, reason)

    def give_up(self, log: Channel, *, jailed: bool = False) -> None:
        """Remove the pid file, also from inside the jail."""
        if self._pid_file is None:
            return
        if jailed:
            self._pid_file.enter_jail()
        try:
            self._pid_file.remove()
        except OSError as error:
            log.warning(f"Cannot remove the pid file {self._pid_file.place}: {os_reason(error)}")
