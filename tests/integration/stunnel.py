"""Debian's stunnel4 as a peer: a run of it in the foreground, with its log."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from .harness import HEADER, PATIENCE, LogLines, require


class Stunnel:
    """One run of stunnel with these services; `ports` maps each to where it listens."""

    def __init__(self, folder: Path, services: str) -> None:
        path = folder / "stunnel.conf"
        path.write_text(f"{HEADER}{services}")
        self._process = subprocess.Popen(
            [require("stunnel4"), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert self._process.stderr is not None
        self.log = LogLines(self._process.stderr)
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Stunnel:
        try:
            self.log.wait("Accepting new connections")
        except AssertionError:
            self._stop()
            raise
        bound = self.log.find(r"Service \[(\S+)\] \(FD=\d+\) bound to \S+:(\d+)$")
        self.ports = {match.group(1): int(match.group(2)) for match in bound}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self.log.wait_end()
