"""From the board to lines of a terminal: as many as there are, none longer than it is wide."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from culvert.cli.daemon.documents import Status
from culvert.cli.daemon.formats import rate, throughput
from culvert.cli.daemon.showing import STATE_STYLES, summary
from culvert.cli.top.board import Asking, Board, Pane
from culvert.cli.top.rates import ConnectionRow, total

_MARK = "reverse"
_FOOT = "q quit  tab pane  </> sort  r turn  / filter  arrows select  k end  space freeze  +/- pace  ? help"
_HELP = (
    "s, c, f or Tab   the services, the connections, the failures",
    "< and >          sort by the column before or behind; r turns the order around",
    "/                show only what contains a text; Escape shows everything again",
    "arrows, pages    select a connection, or scroll",
    "k or Delete      end the selected connection, once you have said y",
    "Space            freeze what is shown, and thaw it",
    "+ and -          look less often, or more often",
    "Enter            look now",
    "q                quit",
    "",
    "Any key leads back.",
)


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where it is drawn: `address` is what the daemon is asked at, `interval` the seconds between two looks.

    `height` is None where there are as many lines as rows, as in a file.
    """

    width: int
    height: int | None
    address: str
    interval: float
    colour: bool = True


def draw(board: Board, canvas: Canvas) -> list[str]:
    """The lines of the whole screen."""
    head = _lines(_head(board, canvas), canvas)
    if canvas.height is None:
        return [*head, *_tables(board, canvas, None)]
    foot = _lines([_foot(board)], canvas)
    room = max(0, canvas.height - len(head) - len(foot))
    body = _help(canvas) if board.asking is Asking.HELP else _tables(board, canvas, room)
    body = body[:room] + [""] * (room - len(body))
    return [*head, *body, *foot][: canvas.height]


def _lines(parts: Sequence[RenderableType], canvas: Canvas) -> list[str]:
    text = io.StringIO()
    console = Console(
        file=text,
        width=max(canvas.width, 20),
        height=1000,
        force_terminal=canvas.colour,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        color_system="auto" if canvas.colour else None,
    )
    console.print(Group(*parts), no_wrap=True, overflow="ellipsis", crop=True)
    return text.getvalue().split("\n")[:-1]


# --- above the tables ---


def _head(board: Board, canvas: Canvas) -> list[Text]:
    lines = [_title(board, canvas)]
    if board.sample is not None:
        lines += [_flow(board), *_obstacles(board.sample.status)]
    if board.trouble is not None:
        lines.append(Text(f"No answer: {board.trouble}; what is shown is old", "bold red"))
    lines.append(Text(""))
    return lines


def _title(board: Board, canvas: Canvas) -> Text:
    title = Text("culvert", "bold")
    if board.sample is not None:
        status = board.sample.status
        title.append(f" {status.version}", "not bold")
        state = "not answering" if board.trouble is not None else status.state
        title.append(f"  {state}", STATE_STYLES.get(state, "bold red"))
        title.append(f"  {summary(status)}", "not bold")
    pace = "frozen" if board.frozen else f"every {canvas.interval:g} s"
    return title.append(f"  {canvas.address}, {pace}", "dim not bold")


def _flow(board: Board) -> Text:
    status = board.sample.status if board.sample is not None else None
    everything = total(board.services)
    return Text(
        f"{0 if status is None else status.open} open, {rate(everything.accepted)} new/s, "
        f"{rate(everything.handshakes)} handshakes/s, {rate(everything.failed)} failed/s, "
        f"to TLS {throughput(everything.to_tls)}, to plain {throughput(everything.to_plain)}"
    )


def _obstacles(status: Status) -> list[Text]:
    found = [Text(f"Not ready: {', '.join(status.obstacles)}", "bold red")] if status.obstacles else []
    if status.reload_failed:
        found.append(Text("The last reload failed: the log says why", "bold yellow"))
    return found


# --- the tables ---


def _tables(board: Board, canvas: Canvas, room: int | None) -> list[str]:
    if room is None:
        panes = [pane for pane in Pane if pane is not Pane.FAILURES or board.failures is not None]
        return [line for pane in panes for line in [*_table(board, canvas, pane, None), ""]]
    share = room if board.pane is Pane.SERVICES else max(3, room // 3)
    upper = _table(board, canvas, Pane.SERVICES, min(share, len(board.rows(Pane.SERVICES)) + 2))
    return [*upper, "", *_table(board, canvas, board.lower, max(0, room - len(upper) - 1))]


def _table(board: Board, canvas: Canvas, pane: Pane, room: int | None) -> list[str]:
    """A heading, the columns' names, and as many rows as there is room for."""
    rows = board.rows(pane)
    count = len(rows) if room is None else max(0, room - 2)
    first = 0 if room is None else _first(board, pane, len(rows), count)
    shown = rows[first : first + count]
    order = board.orders[pane]
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=canvas.height is not None
    )
    columns = [one for one in board.columns(pane) if one.least <= canvas.width]
    for column in columns:
        mark = ""
        if board.columns(pane)[order.column] is column:
            mark = " v" if column.number != order.turned else " ^"
        table.add_column(
            column.title + mark,
            justify="right" if column.number else "left",
            no_wrap=True,
            overflow="ellipsis",
            header_style=_MARK if mark and pane is board.pane else None,
        )
    for index, row in enumerate(shown, first):
        chosen = pane is Pane.CONNECTIONS and board.pane is pane and index == board.selected
        table.add_row(*(column.cell(row) for column in columns), style=_MARK if chosen else _style(board))
    return _lines([_heading(board, pane, rows, first, len(shown)), table], canvas)[
        : None if room is None else room
    ]


def _first(board: Board, pane: Pane, rows: int, room: int) -> int:
    """The first row that is shown: such that the selected one is."""
    last = max(0, rows - room)
    if pane is not Pane.CONNECTIONS:
        return min(board.offsets[pane], last)
    at = board.selected
    offset = board.offsets[pane]
    if at is not None and room:
        offset = min(max(offset, at - room + 1), at)
    board.offsets[pane] = min(offset, last)
    return board.offsets[pane]


def _style(board: Board) -> str:
    return "dim" if board.trouble is not None else ""


def _heading(board: Board, pane: Pane, rows: Sequence[Any], first: int, shown: int) -> Text:
    heading = Text(f"{pane.value}", "bold underline" if pane is board.pane else "underline")
    words = []
    if pane is Pane.FAILURES and board.failures is None:
        words.append("this daemon does not tell them")
    elif shown < len(rows):
        words.append(f"{first + 1} to {first + shown} of {len(rows)}")
    if pane is Pane.CONNECTIONS and board.sample is not None:
        found = board.sample.connections
        if found.total > len(found.listed):
            words.append(f"{found.total - len(found.listed)} more are not listed")
        if not found.complete:
            words.append("a worker did not answer")
    if board.filter:
        words.append(f'with "{board.filter}"')
    heading.append(f"  {', '.join(words)}" if words else "", "not bold not underline")
    return heading


def _help(canvas: Canvas) -> list[str]:
    return _lines([Text(line) for line in _HELP], canvas)


# --- below ---


def _foot(board: Board) -> Text:
    if board.asking is Asking.FILTER:
        return Text(f"Show what contains: {board.filter}_  (Enter keeps it, Escape drops it)", "bold")
    if board.asking is Asking.CONSENT and board.victim is not None:
        return Text(_question(board.victim), "bold yellow")
    if board.message:
        return Text(board.message, "bold")
    return Text(_FOOT, "dim")


def _question(row: ConnectionRow) -> str:
    one = row.connection
    whose = f"connection {one.ident} of {one.peer}, service [{one.service}]"
    return f"End {whose}? y ends it, any other key does not"
