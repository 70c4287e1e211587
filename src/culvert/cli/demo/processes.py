"""The processes that the demo starts: the real `culvert run`, and a TLS server that is not Culvert.

Each is a context manager: what was started is ended, whatever happens in between.
"""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from culvert.errors import CulvertError

START_LIMIT = 20.0
"""Seconds for a process to be ready, or for a line to appear in a log."""

_STOP_LIMIT = 10.0
_TAIL = 15
_BOUND = r"Service \[{name}\] \(FD=\d+\) bound to .*:(?P<port>\d+)$"


class DemoError(CulvertError):
    """A step of the demo did not happen; the text says which."""


class Tunnel:
    """One end of a tunnel: `culvert run FILE`, which logs to its standard error (`foreground = yes`)."""

    def __init__(self, configuration: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "culvert", "run", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the demo, which ends what it started
        )
        self.name = configuration.name
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End the process (SIGTERM, in the end SIGKILL) and return its exit status."""
        self._process.terminate()
        try:
            status = self._process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._reader.join(_STOP_LIMIT)
        return status

    def port(self, service: str) -> int:
        """The port that the kernel chose for a service's `accept`, as the log has it."""
        bound = self.await_line(_BOUND.format(name=re.escape(service)), f"the port of [{service}]")
        return int(bound["port"])

    def await_ready(self) -> None:
        self.await_line(r"Accepting new connections$", "that it accepts connections")

    def last_lines(self) -> str:
        """The end of the log, under the configuration's name."""
        with self._changed:
            return "\n".join([f"The log of {self.name} ends:", *self._lines[-_TAIL:]])

    def mark(self) -> int:
        """The number of lines so far: to be given to `await_line`, which then looks behind them only."""
        with self._changed:
            return len(self._lines)

    def await_line(self, pattern: str, what: str, after: int = 0) -> re.Match[str]:
        """The first line of the log that matches, and so tells `what`; the match's `string` is the line.

        Raises DemoError when the process ends, or when START_LIMIT passes, without one.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + START_LIMIT
        with self._changed:
            while True:
                for line in self._lines[after:]:
                    if match := expression.search(line):
                        return match
                if self._ended or not self._changed.wait(deadline - time.monotonic()):
                    raise DemoError(self._describe_silence(what))

    def _describe_silence(self, what: str) -> str:
        state = "ended" if self._ended else f"ran for {START_LIMIT:.0f} seconds"
        return f"culvert run {self.name} {state} and its log did not tell {what}"

    def _read(self) -> None:
        stream = self._process.stderr
        assert stream is not None  # noqa: S101 - asked for above
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@contextlib.contextmanager
def foreign_server(certificate: Path) -> Iterator[int]:
    """The port of an echo server on the standard library's `ssl`, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "culvert.cli.demo.foreign", str(certificate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above
            readable, _, _ = select.select([process.stdout], [], [], START_LIMIT)
            announced = process.stdout.readline() if readable else b""
            if not announced:
                raise DemoError("the TLS server of the standard library did not start")
            yield int(announced)
        finally:
            process.kill()
