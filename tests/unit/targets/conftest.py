"""The log of the tests of connecting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import targets


@pytest.fixture
def log(tmp_path: Path) -> Iterator[targets.Written]:
    """A log of which the text can be read."""
    yield from targets.opened(tmp_path)
