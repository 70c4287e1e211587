"""A run of `culvert trace`: its lines, its capture, and how tshark reads that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from .harness import PATIENCE, LogLines, require


class Trace:
    """`culvert trace` between a client and a server; `port` is where it listens, `shown` what it prints."""

    def __init__(
        self, target: int, *arguments: str | Path, stopped_by: signal.Signals = signal.SIGTERM
    ) -> None:
        self._stopped_by = stopped_by
        ends = ("--listen", "127.0.0.1:0", "--connect", f"127.0.0.1:{target}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "culvert", "trace", *ends, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.shown = LogLines(self.process.stdout)
        self.said = LogLines(self.process.stderr)

    @property
    def port(self) -> int:
        return int(self.said.wait(r"^\[\.\] Listening on 127\.0\.0\.1:(\d+)$")[1])

    @property
    def text(self) -> str:
        return "\n".join(self.shown.lines)

    def objects(self) -> list[dict[str, Any]]:
        """What `--json` has printed."""
        return [json.loads(line) for line in self.shown.lines]

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

    def __enter__(self) -> Trace:
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
