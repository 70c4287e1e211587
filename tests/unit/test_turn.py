"""The turn to run a program: one holder at a time, within a process and between processes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from culvert.turn import Turn

from .forked import bound_life, in_child


@contextlib.contextmanager
def held_elsewhere(turn: Turn) -> Iterator[int]:
    """Another process takes the turn and keeps it to its end, which is here at the latest."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        bound_life()
        os.write(writer, b"taken" if turn.take() else b"refused")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(reader, 16) == b"taken"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def expect(turn: Turn, outcome: bool) -> None:
    """Asserts what `take` says; for a process of its own."""
    assert turn.take() is outcome


def test_who_has_it_is_refused_a_second_one() -> None:
    turn = Turn("program")
    assert turn.take()
    assert not turn.take()


def test_given_back_it_can_be_taken_again() -> None:
    turn = Turn("program")
    for _ in range(3):
        assert turn.take()
        turn.give_back()
    with held_elsewhere(turn):
        pass


def test_while_another_process_has_it_nobody_else_does() -> None:
    turn = Turn("program")
    with held_elsewhere(turn):
        assert not turn.take()
        assert not turn.take()
        assert in_child(lambda: expect(turn, False)) == (0, "")
    assert turn.take(), "the kernel gives it back for a process that was killed"


def test_a_process_keeps_nothing_beyond_its_end() -> None:
    turn = Turn("program")
    for _ in range(2):
        assert in_child(lambda: expect(turn, True)) == (0, "")
    assert turn.take()


def test_each_program_has_its_own() -> None:
    one, other = Turn("one"), Turn("other")
    assert one.take()
    assert other.take()
    with contextlib.ExitStack() as stack:
        one.give_back()
        stack.enter_context(held_elsewhere(one))
        assert not one.take()
        assert not other.take()
