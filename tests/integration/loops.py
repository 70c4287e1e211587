"""Both event loops, for tests that use the library: what they leave open is a fault."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from .harness import PATIENCE

NAMES = ("asyncio", "uvloop")

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
"""Runs a coroutine on a fresh loop, bounded in time; no descriptor, and no task, may be left by it."""


def runner(name: str) -> Run:
    """What runs a coroutine on the loop of this name."""
    factory = asyncio.new_event_loop
    if name == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    async def bounded(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.wait_for(main(), PATIENCE)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=factory) as first:  # some are opened once for the process
            first.run(asyncio.sleep(0))
        before = _descriptors()
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(bounded(main))
        gc.collect()
        assert _descriptors() <= before

    return run


def _descriptors() -> set[str]:
    # The one that lists them is gone by the time that it is looked at.
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}
