"""The master side of a pseudoterminal as a stream."""

from __future__ import annotations

import os
import pty
import socket
import tty
from collections.abc import Iterator

import pytest

from culvert.spawn import Terminal


class Program:
    """The slave's side, where a program would be; kept open so that nothing hangs up by itself."""

    def __init__(self) -> None:
        master, self.slave = pty.openpty()
        os.set_blocking(master, False)
        os.set_blocking(self.slave, False)
        self.terminal = Terminal(master)

    def read(self) -> bytes | None:
        """What a program's read returns: a line, nothing for the end, or None where it would wait."""
        try:
            return os.read(self.slave, 65536)
        except BlockingIOError:
            return None

    def hang_up(self) -> None:
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.hang_up()
    made.terminal.close()


def send(terminal: Terminal, data: bytes) -> int:
    return terminal.send(memoryview(data))


def test_lines_pass_in_both_directions(program: Program) -> None:
    tty.setraw(program.slave)
    assert send(program.terminal, b"to the program") == 14
    assert program.read() == b"to the program"
    os.write(program.slave, b"from the program")
    buffer = bytearray(100)
    assert program.terminal.recv_into(buffer) == 16
    assert buffer[:16] == b"from the program"


def test_nothing_to_read_is_no_end(program: Program) -> None:
    with pytest.raises(BlockingIOError):
        program.terminal.recv_into(bytearray(10))


def test_a_hang_up_is_the_end_and_what_came_before_it_is_read(program: Program) -> None:
    tty.setraw(program.slave)
    os.write(program.slave, b"last words")
    program.hang_up()
    buffer = bytearray(100)
    assert program.terminal.recv_into(buffer) == 10
    assert program.terminal.recv_into(buffer) == 0


def test_what_nobody_will_read_is_taken(program: Program) -> None:
    program.hang_up()
    assert send(program.terminal, b"too late") == 8


@pytest.mark.parametrize("said", [b"", b"a line\n", b"half a line", b"a line\nand half of one"])
def test_the_end_of_input_is_heard_wherever_the_line_stands(program: Program, said: bytes) -> None:
    if said:
        send(program.terminal, said)
    program.terminal.shutdown(socket.SHUT_WR)
    heard = b""
    while piece := program.read():
        heard += piece
    assert piece == b"", "a program would wait for more"
    assert heard == said


def test_a_raw_terminal_is_told_nothing_at_the_end_of_input(program: Program) -> None:
    tty.setraw(program.slave)
    program.terminal.shutdown(socket.SHUT_WR)
    assert program.read() is None


def test_closing_twice_closes_once(program: Program) -> None:
    program.terminal.close()
    with socket.socket():
        program.terminal.close()
