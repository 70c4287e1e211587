"""The load of `integration.load` as a test starts it, and what the kernel knows of a daemon's connections."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .harness import PATIENCE, eventually

_LONGEST = 60.0
"""Seconds for an answer: the last one waits for every connection's end."""


class Load:
    """The process with the clients and the backend; `backend` is the port of the latter."""

    def __init__(self, folder: Path) -> None:
        self._errors = (folder / "load.errors").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=Path(__file__).parent.parent,
        )
        self._turn = threading.Lock()
        self.backend: int = self.ask("backend")

    def ask(self, what: str, **more: Any) -> Any:
        """Give an order, and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
            self._process.stdin.flush()
            assert select.select([self._process.stdout], [], [], _LONGEST)[0], f"no answer to {what}"
            line = self._process.stdout.readline()
        assert line, f"the load has ended: {Path(self._errors.name).read_text()}"
        return json.loads(line)

    def await_more(self, count: int) -> None:
        """Wait until so many short connections more have come to their end."""
        goal = self.ask("count")["done"].get("short", 0) + count
        eventually(lambda: self.ask("count")["done"].get("short", 0) >= goal, "more short connections")

    def finish(self) -> Any:
        """Have every connection come to its end; the report."""
        report = self.ask("finish")
        errors = Path(self._errors.name).read_text()
        assert not errors, errors
        return report

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Killed:
    """A worker that was killed between two times of the monotonic clock, and the ports at both ends of each
    connection that it had."""

    pid: int
    before: float
    after: float
    ports: frozenset[int]

    def concerns(self, record: dict[str, Any]) -> bool:
        """Whether a connection of the load was this worker's."""
        lived = record["began"] <= self.after and record["ended"] >= self.before
        return lived and not self.ports.isdisjoint({record["client_port"], record["backend_port"]} - {0})


def kill(pid: int, *fixed: int) -> Killed:
    """Kill a worker, as soon as it is known which connections it has; `fixed` ports are everyone's.

    Raises ProcessLookupError where it has ended by itself.
    """
    before = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: stopped(pid), "the end of its work")
    ports = ports_of(pid) - set(fixed)
    after = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return Killed(pid, before, after, frozenset(ports))


def stopped(pid: int) -> bool:
    """Whether a process does nothing any more. Raises ProcessLookupError where it has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        raise ProcessLookupError from None
    if state in "ZX":
        raise ProcessLookupError
    return state == "T"


def ports_of(pid: int) -> set[int]:
    """Both ports of each TCP connection that a process has accepted or made."""
    return {port for state, local, remote in _sockets(pid) if state != "0A" for port in (local, remote)}


def listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens on this port."""
    return ("0A", port, 0) in _sockets(pid)


def listens_at(pid: int, path: Path) -> bool:
    """Whether a process has the Unix socket that listens at this path."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return not _inodes(pid).isdisjoint(line[6] for line in lines if line[-1] == str(path))


def _inodes(pid: int) -> set[str]:
    """Of the sockets of a process; none where it has ended."""
    inodes = set()
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if match := re.match(r"socket:\[(\d+)\]", str(fd.readlink())):
                    inodes.add(match[1])
    return inodes


def _sockets(pid: int) -> set[tuple[str, int, int]]:
    """The state (proc(5): 0A listens) and the two ports of each TCP socket of a process."""
    inodes = _inodes(pid)
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:  # it has ended meanwhile
        return set()
    fields = [line.split() for line in lines]
    return {(one[3], _port(one[1]), _port(one[2])) for one in fields if one[9] in inodes}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
