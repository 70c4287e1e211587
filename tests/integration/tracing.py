"""A run of `culvert trace`: its lines, its capture, and how tshark reads that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .harness import PATIENCE, LogLines, require


class TraceCommand:
    """`culvert trace` with these arguments; `shown` is what it prints, `said` its standard error."""

    def __init__(
        self,
        *arguments: str | Path,
        stopped_by: signal.Signals = signal.SIGTERM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._stopped_by = stopped_by
        self.process = subprocess.Popen(
            [sys.executable, "-m", "culvert", "trace", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.shown = LogLines(self.process.stdout)
        self.said = LogLines(self.process.stderr)

    @property
    def text(self) -> str:
        return "\n".join(self.shown.lines)

    def objects(self) -> list[dict[str, Any]]:
        """What `--json` has printed."""
        return [json.loads(line) for line in self.shown.lines]

    def wait(self) -> int:
        """Wait for its own end; gives the exit status."""
        self.process.wait(PATIENCE)
        return self.stop()

    def stop(self) -> int:
        """End it by its signal; gives the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(self._stopped_by)
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.shown.wait_end()
            self.said.wait_end()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status = self.stop()
        if kind is None:
            assert status == 0, self.said.lines


class Trace(TraceCommand):
    """`culvert trace` between a client and a server; `port` is where it listens."""

    def __init__(
        self, target: int, *arguments: str | Path, stopped_by: signal.Signals = signal.SIGTERM
    ) -> None:
        ends = ("--listen", "127.0.0.1:0", "--connect", f"127.0.0.1:{target}")
        super().__init__(*ends, *arguments, stopped_by=stopped_by)

    @property
    def port(self) -> int:
        return int(self.said.wait(r"^\[\.\] Listening on 127\.0\.0\.1:(\d+)$")[1])


def tshark(capture: Path, *arguments: str) -> list[str]:
    """The lines that tshark prints of a capture, with every checksum checked."""
    checks = ("-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
    ran = subprocess.run(
        [require("tshark"), "-r", str(capture), *checks, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=True,
    )
    return ran.stdout.splitlines()
