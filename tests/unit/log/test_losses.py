"""Sinks that fail lose lines, count them and tell of them; nobody waits for a reader that has stopped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.config.model import Debug
from culvert.log import Channel, FileSink, Log, TextLines
from culvert.log.patience import MOST
from culvert.log.sinks import standard_stream

from ..forked import in_child

DEBUG = Debug(7, 3)
LINE = "x" * 1000


@contextlib.contextmanager
def as_stderr(fd: int) -> Iterator[FileSink]:
    """A sink on standard error, which is `fd` for as long as it takes to open it."""
    saved = os.dup(2)
    try:
        os.dup2(fd, 2)
        sink = standard_stream(2, TextLines())
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    yield sink
    sink.close()


def flood(sink: FileSink, lines: int = 400) -> tuple[Channel, Log, float]:
    """Write more than anything in between can hold; the seconds that it took."""
    log = Log([sink])
    main = log.channel(DEBUG, "main")
    began = time.monotonic()
    for _ in range(lines):
        main.notice(LINE)
    return main, log, time.monotonic() - began


def pipe() -> tuple[int, int]:
    return os.pipe()


def stream() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def terminal() -> tuple[int, int]:
    return pty.openpty()


KINDS = {"pipe": pipe, "socket": stream, "terminal": terminal}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_has_stopped_costs_a_moment_and_no_more(kind: str) -> None:
    reader, writer = KINDS[kind]()
    with as_stderr(writer) as sink:
        main, log, took = flood(sink)
        assert took < MOST + 2
        lost = log.lost()
        assert 0 < lost["stderr"] < 400
        began = time.monotonic()
        for _ in range(100):
            main.notice(LINE)
        assert time.monotonic() - began < MOST / 2
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("kind", KINDS)
def test_the_flags_of_the_shared_description_stay(kind: str) -> None:
    reader, writer = KINDS[kind]()
    with as_stderr(writer) as sink:
        flood(sink, 1)
        assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(reader)
    os.close(writer)


def test_a_reader_that_comes_back_is_told_what_was_lost() -> None:
    reader, writer = os.pipe()
    with as_stderr(writer) as sink:
        main, log, _ = flood(sink)
        lost = log.lost()["stderr"]
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 65536):
                pass
        main.notice("again")
        lines = os.read(reader, 65536).decode().splitlines()
        assert [line.partition("LOG")[2] for line in lines] == [
            f"4[main]: {lost} log line(s) before this one could not be written",
            "5[main]: again",
        ]
        assert log.lost()["stderr"] == lost
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_cannot_be_had_anew_is_not_waited_for_either() -> None:
    reader, writer = os.pipe()
    _, log, took = flood(FileSink(writer, None))
    assert took < MOST + 2
    assert log.lost()["file"]
    log.close()
    os.close(reader)


def test_a_pipe_that_nobody_reads_loses_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    _, log, took = flood(FileSink(writer, None), 5)
    assert log.lost() == {"file": 5}
    assert took < MOST
    log.close()


def test_a_child_tells_nothing_of_its_parents_losses(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    _, log, _ = flood(FileSink(writer, None), 5)

    def child() -> None:
        log.begin_anew()
        assert not log.lost()

    assert in_child(child) == (0, "")
    assert log.lost() == {"file": 5}
    log.close()
