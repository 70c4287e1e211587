"""Runs the real daemon for the integration tests: its process, its log, its ports, and what it holds.

A `Culvert` runs in the foreground with its log on a pipe that a thread reads, so that a test waits for a
line and never sleeps. Every process that descends from it carries a mark in its environment, which is how
`stop` finds what was left behind, orphans included.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import pytest

PATIENCE = 20.0
"""Seconds that a test waits for something that takes milliseconds: the machine may be busy."""

HEADER = """\
foreground = yes
syslog = no
pid =
debug = 7
"""

AT_ONCE = "drainTimeout = 0\n"
"""For a test that is over: nobody waits for the connections that it left open."""

Result = TypeVar("Result")


def require(binary: str) -> str:
    """The path of a real peer; without it the test is skipped, or fails where CULVERT_REQUIRE_PEERS=1."""
    path = shutil.which(binary)
    if path is None and os.environ.get("CULVERT_REQUIRE_PEERS") == "1":
        pytest.fail(f"{binary} is not installed and CULVERT_REQUIRE_PEERS=1", pytrace=False)
    if path is None:
        pytest.skip(f"{binary} is not installed")
    return path


def eventually(probe: Callable[[], Result], what: str, timeout: float = PATIENCE) -> Result:
    """The first true result of `probe`, asked again until `timeout`: for states that nothing announces."""
    deadline = time.monotonic() + timeout
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} not seen in {timeout} s, last: {result!r}")
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """The living processes below `pid`, without itself."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(after_name[1]), []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def marked(mark: str) -> list[int]:
    """The processes that carry `mark` in the environment they were started with."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def open_descriptors(pids: Iterable[int]) -> int:
    """How many descriptors these processes hold together; one that is gone counts nothing."""
    total = 0
    for pid in pids:
        try:
            total += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a count of names is all
        except OSError:
            continue
    return total


class LogLines:
    """The lines that a stream gave so far, and a way to wait for the next."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self.ended = False
        self._changed = threading.Condition()
        self._stream = stream
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def mark(self) -> int:
        """Where the log stands now, for `since`."""
        return len(self.lines)

    def find(self, pattern: str, since: int = 0) -> list[re.Match[str]]:
        """The matches of `pattern` in the lines so far."""
        return [m for line in self.lines[since:] if (m := re.search(pattern, line))]

    def wait(self, pattern: str, timeout: float = PATIENCE, since: int = 0) -> re.Match[str]:
        """The first match of `pattern` in a line from `since` on; fails at the stream's end or in time."""
        deadline = time.monotonic() + timeout
        position = since
        with self._changed:
            while True:
                while position < len(self.lines):
                    if match := re.search(pattern, self.lines[position]):
                        return match
                    position += 1
                remaining = deadline - time.monotonic()
                if self.ended or remaining <= 0 or not self._changed.wait(remaining):
                    seen = "\n".join(self.lines[-60:])
                    why = "the log ended" if self.ended else f"{timeout} s passed"
                    raise AssertionError(f"no line matches {pattern!r}: {why}; the log:\n{seen}")

    def wait_end(self, timeout: float = PATIENCE) -> None:
        """Waits until every writer of the stream has closed it."""
        self._thread.join(timeout)
        assert self.ended, "a process still holds the log's descriptor"
        self._stream.close()


class Culvert:
    """One run of `culvert run FILE` (or another command that takes the file), in the foreground.

    `services` is the configuration behind `header` and `options` (more global lines); with `header=""` it is
    the whole file. `workers=None` leaves the option out; `prefix` is a command that runs the daemon, which
    gets `descriptors`. Use it as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        folder: Path,
        services: str,
        *,
        options: str = "",
        header: str = HEADER + AT_ONCE,
        workers: int | None = 1,
        command: Sequence[str] = ("run",),
        prefix: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / "culvert.conf"
        self.temporary = folder / "tmp"
        self._header = header + options + ("" if workers is None else f"workers = {workers}\n")
        self._command = command
        self._prefix = prefix
        self._descriptors = descriptors
        self._stdin = stdin
        self.stopped = False
        self._mark = f"CULVERT_TEST_MARK={uuid.uuid4().hex}"
        self._environment = dict(environment or {})
        self.configure(services)

    def configure(self, services: str) -> None:
        """Writes the configuration file again; a running daemon reads it at its next reload."""
        self.path.write_text(f"{self._header}{services}")

    def launch(self) -> None:
        """Starts the process and its log, and does not wait for it to serve."""
        self.temporary.mkdir(exist_ok=True)
        name, _, value = self._mark.partition("=")
        self.process = subprocess.Popen(
            self.arguments(),
            stdin=self._stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(self.temporary), name: value, **self._environment},
            pass_fds=self._descriptors,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout = LogLines(self.process.stdout)
        self.log = LogLines(self.process.stderr)

    def arguments(self) -> list[str]:
        """The command that is run."""
        return [*self._prefix, sys.executable, "-m", "culvert", *self._command, str(self.path)]

    def start(self) -> Culvert:
        """Starts the process and waits until it accepts."""
        self.launch()
        try:
            self.log.wait("Accepting new connections")
        except AssertionError:
            self.kill()
            raise
        return self

    @property
    def pid(self) -> int:
        """The process that was started: the supervisor."""
        return self.process.pid

    def address(self, service: str) -> tuple[str, int]:
        """Where a service listens, as the newest `bound to` line says it."""
        bound = self.log.find(rf"Service \[{re.escape(service)}\] \(FD=\d+\) bound to (\S+):(\d+)$")
        assert bound, f"service [{service}] is not bound: {self.log.lines}"
        return bound[-1].group(1), int(bound[-1].group(2))

    def port(self, service: str) -> int:
        """The port that the kernel chose for a service."""
        return self.address(service)[1]

    def await_log(self, pattern: str, timeout: float = PATIENCE, since: int = 0) -> re.Match[str]:
        """The first match of `pattern` in a log line from `since` (a `log.mark()`) on."""
        return self.log.wait(pattern, timeout, since)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the supervisor."""
        self.process.send_signal(number)

    def reload(self, services: str) -> int:
        """Writes a new configuration and sends SIGHUP; gives the log's mark from before."""
        mark = self.log.mark()
        self.configure(services)
        self.send_signal(signal.SIGHUP)
        return mark

    def tree(self) -> list[int]:
        """The supervisor, its workers and their programs."""
        return [self.pid, *descendants(self.pid)]

    def descriptors(self) -> int:
        """The open descriptors over the tree."""
        return open_descriptors(self.tree())

    def await_descriptors(self, count: int, timeout: float = PATIENCE) -> None:
        """Waits until the tree holds `count` descriptors or fewer."""
        eventually(lambda: self.descriptors() <= count, f"{count} open descriptors", timeout)

    def cpu(self) -> float:
        """Seconds of processor time that the living processes of the tree have used."""
        ticks = 0
        for pid in self.tree():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of memory over the tree, each shared page counted in parts (PSS)."""
        total = 0
        for pid in self.tree():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):  # ended meanwhile, as programs do
                continue
            total += sum(int(kilobytes) for kilobytes in re.findall(r"(?m)^Pss:\s+(\d+) kB", rollup))
        return total * 1024

    def wait(self, timeout: float = PATIENCE) -> int:
        """Waits for the process to end by itself and gives its exit status."""
        status = self.process.wait(timeout)
        self._close()
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM, status: int = 0) -> None:
        """Ends the daemon and asserts that it ended well and left nothing behind."""
        self.stopped = True
        if self.process.poll() is None:
            self.send_signal(number)
        try:
            assert self.wait() == status, "\n".join(self.log.lines[-60:])
            eventually(lambda: not self.leftovers(), "the end of every process", timeout=5)
        finally:
            self.kill()
        assert not list(self.temporary.iterdir()), "temporary files were left behind"
        assert not self.log.find("Traceback|internal error"), "\n".join(self.log.lines[-60:])
        assert not self.log.find("did not stop in time"), "\n".join(self.log.lines[-60:])
        assert not self.stdout.lines, f"standard output stays empty, but has {self.stdout.lines}"

    def leftovers(self) -> list[int]:
        """The processes that this run started and that still live."""
        return marked(self._mark)

    def kill(self) -> None:
        """Ends every process of this run at once."""
        for pid in self.leftovers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(PATIENCE)
        self._close()

    def _close(self) -> None:
        self.log.wait_end()
        self.stdout.wait_end()

    def __enter__(self) -> Culvert:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()
