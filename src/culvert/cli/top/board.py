"""What `culvert top` shows, and what keys do to it: no terminal, no daemon, no clock."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from culvert.cli.daemon.documents import Failure
from culvert.cli.top.columns import CONNECTIONS, FAILURES, SERVICES, Column
from culvert.cli.top.rates import ConnectionRow, Sample, ServiceRow, connection_rows, service_rows

FILTER_LIMIT = 60
"""Characters of a filter: what is longer is not typed."""

_PAGE = 10


class Pane(enum.Enum):
    """One of the tables."""

    SERVICES = "Services"
    CONNECTIONS = "Connections"
    FAILURES = "Failures"


class Act(enum.Enum):
    """What a key asks of whoever holds the board."""

    QUIT = "quit"
    REFRESH = "refresh"
    REDRAW = "redraw"
    END = "end"
    FASTER = "faster"
    SLOWER = "slower"


class Asking(enum.Enum):
    """What is typed for."""

    NOTHING = "nothing"
    FILTER = "filter"
    CONSENT = "consent"
    HELP = "help"


@dataclass(slots=True)
class Order:
    """By which column a table is sorted; `turned` is against its own direction."""

    column: int
    turned: bool = False


class Board:
    """The state of the display."""

    def __init__(self) -> None:
        self.pane = Pane.CONNECTIONS
        self.asking = Asking.NOTHING
        self.filter = ""
        self.frozen = False
        self.message = ""
        self.trouble: str | None = None
        """Why the daemon does not answer."""
        self.sample: Sample | None = None
        self.services: list[ServiceRow] = []
        self.connections: list[ConnectionRow] = []
        self.failures: list[Failure] | None = None
        self.orders = {Pane.SERVICES: Order(0), Pane.CONNECTIONS: Order(3), Pane.FAILURES: Order(0)}
        self._selected: tuple[int, str] | None = None
        """The key of a connection: it stays selected wherever it is sorted to."""
        self.offsets = dict.fromkeys(Pane, 0)
        self.victim: ConnectionRow | None = None

    # --- what the daemon tells ---

    def show(self, sample: Sample) -> None:
        """Take a new look in."""
        self.trouble = None
        if self.frozen:
            return
        before, self.sample = self.sample, sample
        self.services = service_rows(before, sample)
        self.connections = connection_rows(before, sample)
        failures = sample.status.failures
        self.failures = None if failures is None else list(failures)

    def lose(self, reason: str) -> None:
        """The daemon does not answer: what it told last stays, and says so."""
        self.trouble = reason

    # --- what is shown of it ---

    def columns(self, pane: Pane) -> Sequence[Column[Any]]:
        """All columns of a table."""
        match pane:
            case Pane.SERVICES:
                return SERVICES
            case Pane.CONNECTIONS:
                return CONNECTIONS
            case Pane.FAILURES:
                return FAILURES

    def rows(self, pane: Pane) -> list[Any]:
        """The rows of a table that pass the filter, sorted."""
        columns = self.columns(pane)
        every: dict[Pane, list[Any]] = {
            Pane.SERVICES: self.services,
            Pane.CONNECTIONS: self.connections,
            Pane.FAILURES: self.failures or [],
        }
        order = self.orders[pane]
        column = columns[order.column]
        wanted = self.filter.casefold()
        found = [
            row
            for row in every[pane]
            if not wanted or any(wanted in one.cell(row).plain.casefold() for one in columns)
        ]
        return sorted(found, key=column.key, reverse=column.number != order.turned)

    @property
    def lower(self) -> Pane:
        """The table below that of the services."""
        return Pane.FAILURES if self.pane is Pane.FAILURES else Pane.CONNECTIONS

    @property
    def selected(self) -> int | None:
        """The place of the selected connection in its table."""
        rows = self.rows(Pane.CONNECTIONS)
        return next((index for index, row in enumerate(rows) if row.key == self._selected), None)

    # --- keys ---

    def press(self, key: str) -> Act | None:
        """Take a key in."""
        self.message = ""
        match self.asking:
            case Asking.FILTER:
                return self._type(key)
            case Asking.CONSENT:
                self.asking = Asking.NOTHING
                return Act.END if key in ("y", "Y") else Act.REDRAW
            case Asking.HELP:
                self.asking = Asking.NOTHING
                return Act.REDRAW
            case Asking.NOTHING:
                return self._command(key)

    def _type(self, key: str) -> Act:
        if key == "enter":
            self.asking = Asking.NOTHING
        elif key == "escape":
            self.asking, self.filter = Asking.NOTHING, ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif key == "erase":
            self.filter = ""
        elif len(key) == 1 and len(self.filter) < FILTER_LIMIT:
            self.filter += key
        return Act.REDRAW

    def _command(self, key: str) -> Act | None:
        acts = {"q": Act.QUIT, "Q": Act.QUIT, "+": Act.SLOWER, "-": Act.FASTER, "redraw": Act.REDRAW}
        if key in acts:
            return acts[key]
        if key in ("enter", "R"):
            return Act.REFRESH
        if key in ("k", "delete"):
            self._ask_consent()
        elif key in _MOVES:
            self._move(key)
        else:
            self._change(key)
        return Act.REDRAW

    def _change(self, key: str) -> None:
        panes = list(Pane)
        match key:
            case "tab":
                self.pane = panes[(panes.index(self.pane) + 1) % len(panes)]
            case "backtab":
                self.pane = panes[panes.index(self.pane) - 1]
            case "s" | "c" | "f":
                self.pane = {"s": Pane.SERVICES, "c": Pane.CONNECTIONS, "f": Pane.FAILURES}[key]
            case "<" | "left":
                self._sort(-1)
            case ">" | "right":
                self._sort(1)
            case "r":
                self.orders[self.pane].turned = not self.orders[self.pane].turned
            case "/":
                self.asking = Asking.FILTER
            case "escape":
                self.filter = ""
            case " ":
                self.frozen = not self.frozen
            case "?" | "h":
                self.asking = Asking.HELP

    def _sort(self, step: int) -> None:
        column = self.orders[self.pane].column + step
        self.orders[self.pane] = Order(column % len(self.columns(self.pane)))

    def _move(self, key: str) -> None:
        rows = self.rows(self.pane)
        if not rows:
            return
        if self.pane is not Pane.CONNECTIONS:
            self.offsets[self.pane] = _moved(key, self.offsets[self.pane], len(rows))
            return
        at = self.selected
        place = (0 if key != "end" else len(rows) - 1) if at is None else _moved(key, at, len(rows))
        self._selected = rows[place].key

    def _ask_consent(self) -> None:
        at = self.selected
        if self.pane is not Pane.CONNECTIONS or at is None:
            self.message = "Select a connection first: c, and the arrow keys"
            return
        self.victim = self.rows(Pane.CONNECTIONS)[at]
        self.asking = Asking.CONSENT


_MOVES = {"up": -1, "down": 1, "page up": -_PAGE, "page down": _PAGE, "home": -(10**9), "end": 10**9}


def _moved(key: str, place: int, count: int) -> int:
    return max(0, min(count - 1, place + _MOVES[key]))
