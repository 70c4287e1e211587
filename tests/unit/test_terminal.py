"""The master side of a pseudoterminal as a stream."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import termios
import tty
from collections.abc import Iterator

import pytest

from culvert.terminal import COMPOSURE, HANG_UP_AFTER, Terminal


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


def test_a_terminal_that_knows_no_end_is_hung_up_later(program: Program) -> None:
    tty.setraw(program.slave)

    async def end() -> None:
        hung_up = asyncio.Event()
        program.terminal.hang_up = hung_up.set
        program.terminal.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(HANG_UP_AFTER * 5):
            await hung_up.wait()

    asyncio.run(end())


def test_a_terminal_that_has_left_raw_mode_by_then_is_told_the_end(program: Program) -> None:
    before = termios.tcgetattr(program.slave)
    tty.setraw(program.slave)

    async def end() -> None:
        program.terminal.hang_up = lambda: pytest.fail("it was hung up")
        program.terminal.shutdown(socket.SHUT_WR)
        termios.tcsetattr(program.slave, termios.TCSANOW, before)
        async with asyncio.timeout(HANG_UP_AFTER * 5):
            while program.read() is None:
                await asyncio.sleep(0.05)

    asyncio.run(end())


def test_a_terminal_that_is_closed_by_then_is_left_alone(program: Program) -> None:
    tty.setraw(program.slave)

    async def end() -> list[str]:
        faults: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault["message"]))
        program.terminal.hang_up = lambda: faults.append("hung up")
        program.terminal.shutdown(socket.SHUT_WR)
        program.terminal.close()
        await asyncio.sleep(HANG_UP_AFTER + 0.2)
        return faults

    assert asyncio.run(end()) == []


@pytest.mark.parametrize("sign", ["a word", "raw mode", "the end"])
def test_a_program_is_composed_once_it_shows_itself(program: Program, sign: str) -> None:
    async def watch() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        composed = loop.create_task(program.terminal.composed())
        await asyncio.sleep(0)
        match sign:
            case "a word":
                os.write(program.slave, b"x")
            case "raw mode":
                tty.setraw(program.slave)
            case "the end":
                program.hang_up()
        await composed
        return loop.time() - begun

    assert asyncio.run(watch()) < COMPOSURE / 2


def test_a_program_that_shows_nothing_is_waited_for_no_longer(program: Program) -> None:
    async def watch() -> None:
        async with asyncio.timeout(COMPOSURE * 5):
            await program.terminal.composed()

    asyncio.run(watch())


def test_closing_twice_closes_once(program: Program) -> None:
    program.terminal.close()
    with socket.socket():
        program.terminal.close()
