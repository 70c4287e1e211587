"""What several unit tests may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import loops
from .generations import Loader


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    """What loads configurations in a directory of its own."""
    loader = Loader(tmp_path)
    yield loader
    loader.close()


@pytest.fixture(params=loops.NAMES)
def run(request: pytest.FixtureRequest) -> loops.Run:
    """What runs a coroutine: on one event loop, then on the other."""
    return loops.runner(request.param)
