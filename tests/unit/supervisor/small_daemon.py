"""A daemon of real processes under the real supervisor, whose workers do nothing but tell what they are told.

All of its processes write one log, which is a pipe: a test awaits lines of it, and its end proves that no
process is left.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from culvert.config.model import GlobalOptions
from culvert.errors import ConfigurationError, Location
from culvert.jail import Place
from culvert.latecomers import Arrivals
from culvert.log import FileSink, Log
from culvert.metrics import Event
from culvert.supervisor import Generation, Supervisor, Timing
from culvert.watch import Watched

from ..options import DEBUG, OPTIONS

PATIENCE = 20.0
QUICK = Timing(ready=PATIENCE, stop=PATIENCE, pause_first=0.02, pause_last=0.08, settled=PATIENCE)


@dataclass
class Setup:
    """What a daemon is built from; `plan` is the file that stands for its configuration.

    The plan's first word says how the workers behave, or that the plan is at fault; NAME=VALUE after it are
    changed options. A worker that drains, or that hesitates to get ready, waits for `gate` to be closed.
    """

    plan: Path
    gate: int
    log: Log
    options: GlobalOptions
    workers: int


@dataclass(frozen=True)
class Posts:
    """Those of so many workers, none of whom stays over a reload."""

    workers: int

    def indices(self) -> Sequence[int]:
        return range(self.workers)

    def missing(self, before: Posts | None) -> Sequence[int]:
        return range(self.workers)

    def heir(self, index: int, successor: Posts) -> int | None:
        return None

    def words(self, index: int) -> Sequence[bytes]:
        return ()


class SmallGeneration:
    """A generation with one listening socket that it shares with no other."""

    def __init__(self, setup: Setup, number: int, behaviour: str, options: GlobalOptions) -> None:
        self.options = options
        self.log = setup.log
        self.workers = setup.workers
        self.posts = Posts(setup.workers)
        self.watched: Watched | None = None
        self.number = number
        self._gate = setup.gate
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines = self.log.channel(DEBUG, f"g{number}")

    @property
    def summary(self) -> str:
        return f"Serving generation {self.number}"

    def announce(self) -> None:
        self._lines.info(f"bound to {self._listener.getsockname()[1]}")

    def bury(self, pid: int) -> None:
        pass

    def administers(self, index: int) -> bool:
        return False

    def note(self, event: Event) -> None:
        pass

    def disown(self, heir: Generation) -> None:
        self._listener.close()

    def turn_away_clients(self) -> Arrivals:
        return Arrivals(())

    def stop_listening(self) -> None:
        self._listener.close()
        self._lines.info("listens no more")

    def retire(self, successor: Generation | None) -> None:
        self._listener.close()
        heir = f"generation {successor.number}" if isinstance(successor, SmallGeneration) else "none"
        self._lines.info(f"retired, successor {heir}")

    def run_worker(self, control: socket.socket, index: int) -> int:
        lines = self._lines.named(f"g{self.number}w{index}")
        lines.info(f"pid {os.getpid()} chroot {self.options.chroot}")
        if self._behaviour == "refuses":
            raise ConfigurationError.single("the jail has no door", Location("plan", 7, "chroot = /none"))
        if self._behaviour == "faulty":
            raise ValueError("not as planned")
        if self._behaviour == "hesitant":
            select.select([self._gate, control.fileno()], [], [], PATIENCE)
        if self._behaviour != "silent":
            control.send(b"ready")
        return self._obey(control, lines.info)

    def _obey(self, control: socket.socket, tell: Callable[[str], None]) -> int:
        sources = [control.fileno()]
        while True:
            readable, _, _ = select.select(sources, [], [], PATIENCE)
            if self._gate in readable or not readable:
                return 0
            message, descriptors, _, _ = socket.recv_fds(control, 16, 8)
            tell(f"got {message.decode() or 'the end'}")
            if message == b"log":
                self.log.adopt(descriptors)
                tell("the log is new")
            elif message == b"drain":
                sources.append(self._gate)
            elif message == b"finish":
                sources.append(self._gate)
                control.send(b"draining: %s" % (b"many" if self._behaviour == "liar" else b"3"))
            elif message == b"list":
                if self._behaviour == "fragile":
                    return 7
            elif self._behaviour != "stubborn":
                if message == b"stop" and len(sources) > 1:
                    control.send(b"ending: 2")
                return 0


def builder(setup: Setup) -> Callable[[Generation | None], Generation]:
    """The `build` of a supervisor that runs `setup`."""
    number = 0

    def build(current: Generation | None) -> Generation:
        nonlocal number
        number += 1
        behaviour, *changes = setup.plan.read_text().split()
        if behaviour == "bad":
            raise ConfigurationError.single("unknown option", Location("plan", 1, "bad"))
        if behaviour == "fault":
            raise ValueError("the plan is beyond me")
        named: dict[str, Any] = dict(change.split("=", 1) for change in changes)
        for name in ("drain_timeout", "reload_drain_timeout"):
            if name in named:
                named[name] = float(named[name])
        options = GlobalOptions(
            **{name: named.get(name, getattr(setup.options, name)) for name in GlobalOptions.__slots__}
        )
        return SmallGeneration(setup, number, behaviour, options)

    return build


@dataclass
class SmallDaemon:
    """A supervisor in a process of its own, and the reading end of its log."""

    folder: Path
    timing: Timing = QUICK
    options: GlobalOptions = OPTIONS
    workers: int = 2
    log_file: Path | None = None
    pid: int = 0
    status: int | None = None
    unread: list[str] = field(default_factory=list)
    all_lines: list[str] = field(default_factory=list)

    def start(self, plan: str = "good") -> SmallDaemon:
        """Fork the supervisor; it is the leader of its process group."""
        self.replan(plan)
        self._log, log_writer = os.pipe()
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                os.setpgid(0, 0)
                os.chdir(self.folder)
                os.close(self._log)
                os.close(self._gate)
                status = self._supervise(gate, log_writer)
            finally:
                os._exit(status)
        os.close(log_writer)
        os.close(gate)
        return self

    def _supervise(self, gate: int, log_writer: int) -> int:
        sinks = [FileSink(log_writer, None)]
        if self.log_file is not None:
            place = Place(None, str(self.log_file))
            sinks.append(FileSink(place.open(os.O_WRONLY | os.O_CREAT), place))
        # Relative on purpose: a reload must find it from wherever the daemon is.
        setup = Setup(Path("plan"), gate, Log(sinks), self.options, self.workers)
        try:
            return Supervisor(builder(setup), self.timing).run()
        except ConfigurationError as error:
            os.write(log_writer, f"told to the caller: {error}\n".encode())
            return 98

    def replan(self, plan: str) -> None:
        (self.folder / "plan").write_text(plan)

    def open_gate(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def reload(self, plan: str) -> None:
        self.replan(plan)
        self.send(signal.SIGHUP)

    def expect(self, pattern: str) -> re.Match[str]:
        """The first line that matches and was not expected before; awaited."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for number, line in enumerate(self.unread):
                if match := re.search(pattern, line):
                    del self.unread[number]
                    return match
            if not self._read_more(deadline):
                raise AssertionError(f"no line matches {pattern!r}:\n" + "\n".join(self.all_lines))

    def expect_all(self, pattern: str) -> list[re.Match[str]]:
        """As many matches as there are workers."""
        return [self.expect(pattern) for _ in range(self.workers)]

    def pids(self, generation: int) -> list[int]:
        """The pids of the workers of a generation, by index."""
        return [int(self.expect(rf"\[g{generation}w{n}\]: pid (\d+)")[1]) for n in range(self.workers)]

    def count(self, pattern: str) -> int:
        """How many of the lines so far match."""
        return sum(re.search(pattern, line) is not None for line in self.all_lines)

    def _read_more(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._log], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._log, 65536) if readable else b""
        if data and not data.endswith(b"\n"):
            raise AssertionError(f"a line is not whole: {data!r}")
        fresh = data.decode().splitlines()
        self.unread += fresh
        self.all_lines += fresh
        return bool(data)

    def wait(self) -> int:
        """Await the end of the process that was started; its exit status, or minus a signal."""
        if self.status is None:
            handle = os.pidfd_open(self.pid)
            try:
                assert select.select([handle], [], [], PATIENCE)[0], "it goes on:\n" + "\n".join(
                    self.all_lines
                )
            finally:
                os.close(handle)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it where it was not ended, and await the end of all its processes."""
        if self.status is None:
            self.send(signal.SIGKILL)
            self.wait()
        deadline = time.monotonic() + PATIENCE
        while self._read_more(deadline):
            pass
        assert time.monotonic() < deadline, "a process is left:\n" + "\n".join(self.all_lines)
        os.close(self._log)
        self.open_gate()
