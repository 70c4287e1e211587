"""When workers that died are replaced: at growing intervals, where one dies soon after the other."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replacement:
    """A worker of the current generation that is to be forked when it is `due`."""

    due: float
    index: int
    pause: float


class Replacements:
    """Those that are to come; a pause is from `first` to `last` seconds."""

    def __init__(self, first: float, last: float) -> None:
        self._first = first
        self._last = last
        self._waiting: list[Replacement] = []

    @property
    def due(self) -> float:
        """When the next one is; infinite where there is none."""
        return min((one.due for one in self._waiting), default=math.inf)

    def schedule(self, index: int, last_pause: float) -> float:
        """Plan one, after twice the pause that the one before it had; returns the pause."""
        pause = min(max(self._first, last_pause * 2), self._last)
        self._waiting.append(Replacement(time.monotonic() + pause, index, pause))
        return pause

    def take(self, now: float) -> list[Replacement]:
        """Those that are due: they are planned no more."""
        due = [one for one in self._waiting if one.due <= now]
        self._waiting = [one for one in self._waiting if one.due > now]
        return due

    def clear(self) -> None:
        """Replace nobody."""
        self._waiting.clear()
