"""Streams of two descriptors: what is read, written, half closed, and left as it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.inherited import InheritedSocket, StandardStreams
from culvert.readiness import Interest, Readiness


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """What a launcher writes to and its reader, and what it reads from and its writer, the ends in order."""
    stdin, writing = os.pipe()
    reading, stdout = os.pipe()
    yield stdin, writing, reading, stdout
    for fd in (stdin, writing, reading, stdout):
        with contextlib.suppress(OSError):
            os.close(fd)


def received(stream: StandardStreams | InheritedSocket, limit: int = 100) -> bytes:
    buffer = bytearray(limit)
    return bytes(buffer[: stream.recv_into(buffer)])


def test_pipes_do_not_wait_and_others_are_left_to(pipes: tuple[int, int, int, int]) -> None:
    stdin, writing, reading, stdout = pipes
    stream = StandardStreams(stdin, stdout)
    with pytest.raises(BlockingIOError):
        received(stream)
    assert os.get_blocking(stdin)
    os.write(writing, b"in")
    assert received(stream) == b"in"
    assert stream.send(memoryview(b"out")) == 3
    assert os.read(reading, 100) == b"out"
    total = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            total += stream.send(memoryview(bytes(10_000)))
    assert total > 0
    assert os.get_blocking(stdout)
    stream.close()


def test_a_pipe_is_half_closed_by_closing_it(pipes: tuple[int, int, int, int]) -> None:
    stdin, writing, reading, stdout = pipes
    stream = StandardStreams(stdin, stdout)
    os.close(stdin)
    os.close(stdout)
    stream.shutdown(socket.SHUT_WR)
    assert os.read(reading, 1) == b""
    os.write(writing, b"still read")
    assert received(stream) == b"still read"
    os.close(writing)
    assert received(stream) == b""
    stream.close()
    stream.close()


def test_a_reader_that_went_is_told_by_the_next_write(pipes: tuple[int, int, int, int]) -> None:
    stdin, _, reading, stdout = pipes
    stream = StandardStreams(stdin, stdout)
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        stream.send(memoryview(b"x"))
    stream.close()


def test_a_socket_says_that_it_does_not_wait() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = InheritedSocket(fileno=os.dup(theirs.fileno()))
        for call in (stream.recv, lambda count: received(stream, count)):
            with pytest.raises(BlockingIOError):
                call(10)
        with pytest.raises(BlockingIOError):
            while True:
                stream.send(bytes(100_000))
        assert os.get_blocking(theirs.fileno())
        stream.close()


def test_a_socket_to_write_to_is_half_closed_by_shutdown(pipes: tuple[int, int, int, int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = StandardStreams(pipes[0], theirs.fileno())
        stream.send(memoryview(b"last"))
        stream.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b"last"
        assert ours.recv(100) == b""
        stream.close()


def test_a_file_is_ready_at_any_time(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"content")
    stdin = os.open(tmp_path / "in", os.O_RDONLY)
    stdout = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names is all
    stream = StandardStreams(stdin, stdout)
    assert select.select([stream.fileno()], [stream.output], [], 0) == (
        [stream.fileno()],
        [stream.output],
        [],
    )
    assert received(stream) == b"content"
    assert received(stream) == b""
    assert stream.send(memoryview(b"written")) == 7
    stream.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(stdin)
    os.close(stdout)
    assert (tmp_path / "out").read_bytes() == b"written"


def test_a_terminal_that_hangs_up_is_at_its_end() -> None:
    master, slave = pty.openpty()
    stream = StandardStreams(slave, slave)
    os.close(slave)
    os.write(master, b"line\n")
    assert received(stream) == b"line\n"
    stream.shutdown(socket.SHUT_WR)
    stream.send(memoryview(b"is not half closed"))
    os.close(master)
    assert received(stream) == b""
    stream.close()


def test_the_master_of_a_terminal_is_not_opened_anew() -> None:
    """Its path would make another one. The flag is set on it, and taken back."""
    master, slave = pty.openpty()
    stream = StandardStreams(master, master)
    assert not os.get_blocking(master)
    os.write(slave, b"x")
    assert received(stream) == b"x"
    stream.close()
    assert os.get_blocking(master)
    os.close(master)
    os.close(slave)


def test_a_closed_descriptor_is_refused() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(OSError):
        StandardStreams(reading, writing)
    os.close(writing)


def test_a_stream_of_two_ends_is_watched_at_both(pipes: tuple[int, int, int, int]) -> None:
    stdin, writing, reading, stdout = pipes
    stream = StandardStreams(stdin, stdout)
    with contextlib.suppress(BlockingIOError):
        while True:
            stream.send(memoryview(bytes(4096)))
    told: list[str] = []

    async def main() -> None:
        readiness = Readiness(asyncio.get_running_loop())
        readiness.pair(stream.fileno(), stream.output)

        def readable() -> bool:
            told.append("readable")
            interest.set(False, interest.writing)
            return False

        def writable() -> None:
            told.append("writable")
            interest.set(interest.reading, False)

        interest = Interest(readiness, stream.fileno(), readable, writable, on_failure=lambda: None)
        interest.set(True, True)
        await asyncio.sleep(0.02)
        assert told == []
        os.read(reading, 1 << 20)
        while told != ["writable"]:
            await asyncio.sleep(0.005)
        os.write(writing, b"x")
        while told != ["writable", "readable"]:
            await asyncio.sleep(0.005)
        interest.close()
        readiness.forget(stream.fileno())
        assert readiness.output(stream.fileno()) == stream.fileno()
        readiness.close()

    async def bounded() -> None:
        await asyncio.wait_for(main(), 20)

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as loop:
        loop.run(bounded())
    stream.close()
