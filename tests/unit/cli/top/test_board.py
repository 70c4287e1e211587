"""What keys do to the display, and what it shows: without a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from culvert.cli.daemon.documents import Connections, Status
from culvert.cli.top.board import FILTER_LIMIT, Act, Asking, Board, Pane
from culvert.cli.top.drawing import Canvas, draw
from culvert.cli.top.rates import Sample

from ..daemon.samples import (
    connection_document,
    connections_document,
    failure_document,
    service_document,
    status_document,
)

CANVAS = Canvas(100, 24, "/run/admin", 2.0, colour=False)


def sample(*connections: dict[str, Any], at: float = 1.0, **status: Any) -> Sample:
    return Sample(
        at, Status.of(status_document(**status)), Connections.of(connections_document(*connections))
    )


@pytest.fixture
def board() -> Board:
    """Two services, three connections, one failure."""
    board = Board()
    connections = [
        connection_document("11", seconds=5, peer="192.0.2.1:1"),
        connection_document("12", seconds=50, peer="192.0.2.2:2"),
        connection_document("13", seconds=500, peer="192.0.2.3:3"),
    ]
    services = [service_document("web", connections={"open": 9, "total": 9}), service_document("mail")]
    board.show(sample(*connections, services=services, failures=[failure_document()]))
    return board


def idents(board: Board) -> list[str]:
    return [row.connection.ident for row in board.rows(Pane.CONNECTIONS)]


def names(board: Board) -> list[str]:
    return [row.service.name for row in board.rows(Pane.SERVICES)]


def press(board: Board, *keys: str) -> Act | None:
    """Press these keys; what the last one asks for."""
    act = None
    for key in keys:
        act = board.press(key)
    return act


def shown(board: Board, canvas: Canvas = CANVAS) -> str:
    return "\n".join(draw(board, canvas))


def test_text_is_sorted_upwards_and_a_number_downwards(board: Board) -> None:
    assert names(board) == ["mail", "web"]
    assert idents(board) == ["13", "12", "11"]
    press(board, "r")
    assert idents(board) == ["11", "12", "13"]


def test_keys_choose_the_column_of_the_pane(board: Board) -> None:
    press(board, "s", ">")
    assert names(board) == ["web", "mail"]
    press(board, "c", "<", "<", "<")
    assert idents(board) == ["11", "12", "13"]


def test_tab_goes_around(board: Board) -> None:
    panes = []
    for key in ("tab", "tab", "tab", "backtab"):
        press(board, key)
        panes.append(board.pane)
    assert panes == [Pane.FAILURES, Pane.SERVICES, Pane.CONNECTIONS, Pane.SERVICES]


def test_a_filter_takes_any_column(board: Board) -> None:
    press(board, "/", *"192.0.2.2", "enter")
    assert (idents(board), board.asking) == (["12"], Asking.NOTHING)
    assert 'with "192.0.2.2"' in shown(board)
    press(board, "escape")
    assert len(idents(board)) == 3


def test_keys_are_letters_in_a_filter(board: Board) -> None:
    assert press(board, "/", "q") is Act.REDRAW
    assert board.filter == "q"
    press(board, "backspace", *"x" * (FILTER_LIMIT + 9))
    assert len(board.filter) == FILTER_LIMIT


def test_a_selection_stays_with_its_connection(board: Board) -> None:
    press(board, "down", "down")
    assert board.selected == 1
    press(board, "r", "<", "<", "<")
    assert idents(board)[board.selected or 0] == "12"
    press(board, "end")
    assert board.selected == 2
    board.show(sample(connection_document("99"), at=2.0))
    assert board.selected is None


def test_a_connection_is_ended_after_consent(board: Board) -> None:
    press(board, "down", "k")
    assert "End connection 13 of 192.0.2.3:3, service [mail]?" in shown(board)
    assert press(board, "y") is Act.END
    assert board.victim is not None
    assert board.victim.connection.ident == "13"


@pytest.mark.parametrize("key", ["n", "escape", "enter", "k", " "])
def test_any_other_key_ends_nothing(board: Board, key: str) -> None:
    assert press(board, "down", "k", key) is not Act.END
    assert board.asking is Asking.NOTHING


def test_consent_is_to_what_was_asked_for(board: Board) -> None:
    press(board, "down", "k")
    board.show(sample(connection_document("99"), at=2.0))
    assert press(board, "y") is Act.END
    assert board.victim is not None
    assert board.victim.connection.ident == "13"


def test_without_a_selection_nothing_is_asked(board: Board) -> None:
    press(board, "k")
    assert board.asking is Asking.NOTHING
    assert "Select a connection first" in shown(board)


def test_frozen_is_what_is_shown(board: Board) -> None:
    press(board, " ")
    board.show(sample(at=2.0))
    assert len(idents(board)) == 3
    assert "frozen" in shown(board)


def test_a_daemon_that_does_not_answer_is_said(board: Board) -> None:
    board.lose("Nobody listens at /run/admin")
    assert "No answer: Nobody listens at /run/admin; what is shown is old" in shown(board)
    board.show(sample(at=2.0))
    assert "No answer" not in shown(board)


def test_failures_are_shown(board: Board) -> None:
    press(board, "f")
    assert "the peer does not speak TLS" in shown(board)


def test_a_daemon_that_tells_no_failures(board: Board) -> None:
    board.show(sample(at=2.0))
    press(board, "f")
    assert "this daemon does not tell them" in shown(board)


def test_a_view_for_a_file_has_everything(board: Board) -> None:
    text = shown(board, Canvas(160, None, "/run/admin", 2.0, colour=False))
    assert all(word in text for word in ("web", "192.0.2.1:1", "192.0.2.3:3", "does not speak TLS"))


def test_more_rows_than_lines_are_scrolled_to(board: Board) -> None:
    board.show(sample(*(connection_document(str(n), seconds=n) for n in range(100, 200)), at=2.0))
    assert "1 to 1" in shown(board)
    assert "of 100" in shown(board)
    press(board, "down", "end")
    text = shown(board)
    assert "100 " in text
    assert "to 100 of 100" in text


KEYS = (
    *"qsckfyr/<> ?x+-",
    *("up", "down", "page down", "end", "home", "tab", "backtab", "escape", "enter", "backspace", "delete"),
)


@settings(deadline=None, max_examples=60)
@given(
    keys=st.lists(st.sampled_from(KEYS), max_size=15), width=st.integers(1, 250), height=st.integers(1, 60)
)
def test_any_keys_leave_a_screen_that_fits(keys: list[str], width: int, height: int) -> None:
    board = Board()
    connections = [connection_document(str(n), sni="\u6f22" * 70) for n in range(30)]
    board.show(sample(*connections, services=[service_document(f"s{n}") for n in range(9)]))
    press(board, *keys)
    lines = draw(board, Canvas(width, height, "/run/admin", 2.0))
    assert len(lines) == height
    assert all(cell_len(Text.from_ansi(line).plain) <= max(width, 20) for line in lines)
