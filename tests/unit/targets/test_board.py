"""What workers tell each other of addresses, through memory that survives a fork."""

from __future__ import annotations

import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from culvert.address import HostPort
from culvert.targets.board import Board
from culvert.targets.endpoint import Endpoint


def endpoint(port: int) -> Endpoint:
    return Endpoint(HostPort("127.0.0.1", port), socket.AF_INET, ("127.0.0.1", port))


def test_nothing_is_known_at_first() -> None:
    board = Board()
    assert board.read(endpoint(1)) is None
    assert board.version == 0


def test_another_process_reads_what_one_writes() -> None:
    board = Board()
    pid = os.fork()
    if pid == 0:
        board.set_aside(endpoint(1))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    seconds = board.read(endpoint(1))
    assert seconds is not None
    assert 0 <= seconds < 10
    before = board.version
    board.clear(endpoint(1))
    assert board.version != before
    assert (board.read(endpoint(1)) or 0) < 0


@given(st.lists(st.tuples(st.integers(0, 2000), st.booleans())))
def test_an_entry_is_the_last_one_written_or_unknown(events: list[tuple[int, bool]]) -> None:
    board = Board()
    last: dict[int, bool] = {}
    for port, aside in events:
        (board.set_aside if aside else board.clear)(endpoint(port))
        last[port] = aside
    for port, aside in last.items():
        seconds = board.read(endpoint(port))
        assert seconds is None or (seconds >= 0) == aside
    if events:
        assert board.read(endpoint(events[-1][0])) is not None
