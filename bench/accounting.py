"""What trees of processes have used, CPU time and memory, as the kernel accounts for it (proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.errors import MeasureError

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Usage:
    """From one /proc/PID/stat: the parent; the ticks of the process and of the children that it reaped."""

    parent: int
    ticks: int


@dataclass(frozen=True, slots=True)
class _Memory:
    """Bytes of one process: its share of the anonymous pages, and all resident pages of files."""

    anonymous: int
    files: int


def _usage_of(pid: str) -> _Usage | None:
    """None where the process ended after it was listed."""
    try:
        line = Path("/proc", pid, "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name in brackets, may itself hold spaces and brackets.
    fields = line.rpartition(")")[2].split()
    return _Usage(parent=int(fields[1]), ticks=sum(int(ticks) for ticks in fields[11:15]))


class ProcessTree:
    """Some processes and all that descend from them, looked up anew at each question.

    A root that has ended raises MeasureError.
    """

    def __init__(self, *roots: int) -> None:
        self._roots = roots

    def cpu_seconds(self) -> float:
        """User and system time since their start, of all threads, past ones too."""
        return sum(usage.ticks for usage in self._members().values()) / _TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Resident memory as if nothing else ran on the machine: it does not change with who else does.

        Anonymous pages count once, though a fork shares them. Pages of program files count as often as in
        the process that has most of them: what the others have are the same.
        """
        memories = [_memory_of(pid) for pid in self._members()]
        return sum(memory.anonymous for memory in memories) + max(memory.files for memory in memories)

    def _members(self) -> dict[int, _Usage]:
        listed = ((int(name), _usage_of(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
        processes = {pid: usage for pid, usage in listed if usage is not None}
        members: dict[int, _Usage] = {}
        found = set(self._roots)
        while found:
            if not found <= processes.keys():
                raise MeasureError("a tunnel's process ended during the measure")
            members |= {pid: processes[pid] for pid in found}
            found = {pid for pid, usage in processes.items() if usage.parent in found}
        return members


def _memory_of(pid: int) -> _Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size.split()[0]) * 1024 for name, _, size in (line.partition(":") for line in lines)}
    if not {"Rss", "Anonymous", "Pss_Anon"} <= sizes.keys():
        raise MeasureError("this kernel's smaps_rollup does not tell anonymous memory from files")
    return _Memory(anonymous=sizes["Pss_Anon"], files=sizes["Rss"] - sizes["Anonymous"])
