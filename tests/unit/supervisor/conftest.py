"""How the tests of the supervisor get their daemons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .small_daemon import SmallDaemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., SmallDaemon]]:
    """Starts daemons, by a plan and the fields of SmallDaemon; each is ended, with all its processes."""
    started: list[SmallDaemon] = []

    def start(plan: str = "good", **fields: Any) -> SmallDaemon:
        started.append(SmallDaemon(tmp_path, **fields))
        return started[-1].start(plan)

    yield start
    for one in started:
        one.close()
