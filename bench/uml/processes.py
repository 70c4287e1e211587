"""In a guest: the processes that some others have started, and the CPU time of each (proc(5))."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; its CPU time is without that of its children, in seconds."""

    pid: int
    parent: int
    name: str
    cpu: float


def descending(*roots: int) -> list[Process]:
    """These processes and all that descend from them, as far as they live."""
    everyone = _all()
    found: list[Process] = []
    wanted = set(roots)
    while wanted:
        found += [process for process in everyone if process.pid in wanted]
        wanted = {process.pid for process in everyone if process.parent in wanted}
    return found


def cpu_of_machine() -> float:
    """Seconds in which the processor was busy so far."""
    user, nice, system, _, _, interrupts, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + interrupts + soft) / _TICKS_PER_SECOND


def _all() -> list[Process]:
    processes = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name in brackets may itself hold spaces and brackets.
            head, _, rest = path.read_text("utf-8", "replace").rpartition(")")
            fields = rest.split()
            ticks = int(fields[11]) + int(fields[12])
            name = head.partition("(")[2]
            processes.append(Process(int(path.parent.name), int(fields[1]), name, ticks / _TICKS_PER_SECOND))
    return processes
