"""Configurations that must not start, and ones that `culvert check` must say something about."""

from __future__ import annotations

from pathlib import Path

from .harness import Culvert, LogLines


def refuse(folder: Path, text: str, pattern: str, options: str = "") -> None:
    """Holds that this configuration ends the start with status 1 and a line that matches `pattern`."""
    daemon = Culvert(folder, text, options=options)
    daemon.launch()
    try:
        assert daemon.wait() == 1
    finally:
        daemon.kill()
    assert daemon.log.find(pattern), "\n".join(daemon.log.lines)


def remarks(folder: Path, text: str) -> list[str]:
    """What `culvert check` says about this configuration."""
    daemon = Culvert(folder, text, command=("check",), header="", workers=None)
    daemon.launch()
    try:
        daemon.wait()
    finally:
        daemon.kill()
    streams: tuple[LogLines, ...] = (daemon.log, daemon.stdout)
    return [line for stream in streams for line in stream.lines]
