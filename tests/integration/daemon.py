"""More ways to run the daemon and to look at it: by any command line, detached, on fixed ports, in a jail."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

from .harness import PATIENCE, descendants, eventually, marked, open_descriptors, require

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = 65534
"""The number of `nobody` and of its group on every distribution of interest."""

LOG_LINE = re.compile(
    r"^\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d LOG(?P<level>[0-7])\[(?P<id>[^\]]+)\]: (?P<text>.*)$"
)


def command(*arguments: str | Path) -> list[str]:
    """The command line that runs `culvert` with these arguments."""
    return [sys.executable, "-m", "culvert", *map(str, arguments)]


def run(
    argv: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, without a terminal; the end of its output is waited for too."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        pass_fds=descriptors,
        check=False,
    )


class LogFile:
    """A log file that something else writes; `lines` is what it holds now."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[str]:
        """The whole lines so far; none where the file does not exist."""
        try:
            content = self.path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return []
        return content.split("\n")[:-1]

    def mark(self) -> int:
        """Where the log stands now, for `since`."""
        return len(self.lines)

    def find(self, pattern: str, since: int = 0) -> list[re.Match[str]]:
        """The matches of `pattern` in the lines so far."""
        return [m for line in self.lines[since:] if (m := re.search(pattern, line))]

    def wait(self, pattern: str, timeout: float = PATIENCE, since: int = 0) -> re.Match[str]:
        """The first match of `pattern` from line `since` on."""
        try:
            return eventually(lambda: self.find(pattern, since), pattern, timeout)[0]
        except AssertionError:
            seen = "\n".join(self.lines[-60:])
            raise AssertionError(f"no line matches {pattern!r} in {self.path}:\n{seen}") from None


class Detached:
    """A daemon that left its terminal: found by its pid file, followed by its log file.

    `text` is the whole configuration; it names `pid_file` and `log_file` as the daemon sees them. `argv`
    is the command line without the file; by default `culvert run`.
    """

    def __init__(
        self,
        folder: Path,
        text: str,
        *,
        pid_file: Path | None = None,
        log_file: Path | None = None,
        argv: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.path = folder / "daemon.conf"
        self.pid_file = pid_file or folder / "daemon.pid"
        self.log = LogFile(log_file or folder / "daemon.log")
        self._argv = [*(command("run") if argv is None else argv)]
        self._mark = uuid.uuid4().hex
        self.environment = {**(environment or {}), "CULVERT_TEST_MARK": self._mark}
        self.configure(text)

    def configure(self, text: str) -> None:
        """Writes the configuration file again."""
        self.path.write_text(text)

    def launch(self, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the command with the file (as `path` names it) to the launcher's end."""
        return run([*self._argv, str(path or self.path)], folder=self.folder, environment=self.environment)

    def start(self, path: Path | None = None) -> Detached:
        """Starts the daemon and waits until it accepts."""
        launched = self.launch(path)
        assert launched.returncode == 0, launched.stderr
        assert launched.stdout == ""
        self.find_pid()
        self.log.wait("Accepting new connections")
        return self

    def find_pid(self) -> None:
        """Reads the pid file into `pid`; stunnel's launcher may end before that file stands."""
        self.pid = int(eventually(lambda: self.pid_file.exists() and self.pid_file.read_text(), "the pid"))

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process that the pid file names."""
        os.kill(self.pid, number)

    def tree(self) -> list[int]:
        """The daemon and everything below it."""
        return [self.pid, *descendants(self.pid)]

    def leftovers(self) -> list[int]:
        """The processes of this run that still live."""
        return marked(self._mark)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the daemon and asserts that nothing of it is left."""
        self.send_signal(number)
        try:
            eventually(lambda: not self.leftovers(), "the end of every process")
        finally:
            self.kill()
        assert not self.log.find("Traceback|internal error"), "\n".join(self.log.lines[-60:])

    def kill(self) -> None:
        """Ends what is left of this run at once."""
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Detached:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self.leftovers():
            self.stop()
        else:
            self.kill()


@contextlib.contextmanager
def fixed_ports(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that only a listener with SO_REUSEADDR can take until the end of the context.

    They are bound, not listening: the kernel gives them to nobody else, and refuses connections to them.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


def answers(port: int) -> bool:
    """Whether someone accepts connections at this port of 127.0.0.1."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def children(pid: int) -> list[int]:
    """The living direct children of a process: of a supervisor, its workers (old generations too)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sorted(int(child) for child in found if _alive(int(child)))


def _alive(pid: int) -> bool:
    try:
        return not re.search(r"(?m)^State:\s+Z", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or while it was read
        return False


def status(pid: int) -> dict[str, list[str]]:
    """The fields of a process's /proc status, split at white space."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


@dataclass(frozen=True)
class Footprint:
    """What a tree of processes holds."""

    processes: int
    descriptors: int


def footprint(pid: int) -> Footprint:
    """How many processes there are from `pid` down, and how many descriptors they hold together."""
    tree = [pid, *descendants(pid)]
    return Footprint(len(tree), open_descriptors(tree))


def await_footprint(pid: int, before: Footprint) -> None:
    """Waits until the tree holds what it held before, or less."""

    def settled() -> bool:
        now = footprint(pid)
        return now.processes <= before.processes and now.descriptors <= before.descriptors

    try:
        eventually(settled, "the footprint of before")
    except AssertionError:
        raise AssertionError(f"{footprint(pid)} is left, it was {before}") from None


class Jail:
    """A directory for `chroot` with a static busybox, and room that any user may write to."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "jail"
        self.room = self.root / "run"
        (self.root / "bin").mkdir(parents=True)
        self.room.mkdir()
        self.room.chmod(0o777)
        shutil.copy(require("busybox"), self.root / "bin" / "busybox")

    @property
    def pid_file(self) -> Path:
        """Where `pid = /run/daemon.pid` stands, seen from outside."""
        return self.room / "daemon.pid"

    @property
    def log_file(self) -> Path:
        """Where `output = /run/daemon.log` stands, seen from outside."""
        return self.room / "daemon.log"

    @property
    def options(self) -> str:
        """The global options of a daemon in this jail, without its powers."""
        return (
            f"chroot = {self.root}\nsetuid = nobody\nsetgid = nogroup\nsyslog = no\ndebug = 7\n"
            "pid = /run/daemon.pid\noutput = /run/daemon.log\n"
        )
