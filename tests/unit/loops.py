"""The event loops that Culvert runs on: what uses one is tested on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

PATIENCE = 20.0
"""Seconds for one test's coroutine: what takes longer hangs."""

NAMES = ("asyncio", "uvloop")

Run = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine to its end on a fresh loop, bounded in time."""


def runner(name: str) -> Run:
    """What runs a coroutine on the loop of this name."""
    factory = asyncio.new_event_loop
    if name == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(main, PATIENCE))

    return run
