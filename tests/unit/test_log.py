"""The log's sinks on a full disk, on a FIFO, and across processes; and what a line may hold."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.config.model import GlobalOptions, LogMode
from culvert.errors import ConfigurationError
from culvert.log import TEXT_LIMIT, Channel, Log, clean, open_log

from .forked import bound_life, in_child
from .options import DEBUG, OPTIONS

LINE = re.compile(r"\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d LOG[45]\[main\]: [^\[\]]*")


def options(output: Path, mode: LogMode = LogMode.APPEND) -> GlobalOptions:
    """The options of a daemon that logs to this file alone."""
    return dataclasses.replace(OPTIONS, output=str(output), log=mode)


@contextlib.contextmanager
def full_at(size: int) -> Iterator[None]:
    """A disk that is full once a file has `size` bytes: the write that reaches it is cut, the next fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The log file."""
    return tmp_path / "log"


@pytest.fixture
def log(path: Path) -> Iterator[Log]:
    """A log that appends to `path`."""
    log = open_log(options(path))
    yield log
    log.close()


@pytest.fixture
def main(log: Log) -> Channel:
    """The daemon's own channel of `log`."""
    return log.channel(DEBUG, "main")


class TestFullDisk:
    def test_a_line_that_was_cut_does_not_run_into_the_next(self, path: Path, main: Channel) -> None:
        with full_at(50):
            main.notice("cut " * 20)
            main.notice("lost")
        main.notice("whole")
        lines = path.read_text().splitlines()
        assert len([line for line in lines if line.endswith("whole")]) == 1
        assert all(LINE.fullmatch(line) for line in lines), lines

    def test_what_was_lost_is_counted_once_before_what_comes_next(self, path: Path, main: Channel) -> None:
        with full_at(0):
            for _ in range(3):
                main.notice("lost")
        main.notice("first")
        main.notice("second")
        texts = [line.partition("[main]: ")[2] for line in path.read_text().splitlines()]
        assert len(texts) == 3
        assert texts[0].startswith("3 log line(s)")
        assert texts[1:] == ["first", "second"]


class TestOpening:
    def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for(self, path: Path) -> None:
        os.mkfifo(path)
        status, said = in_child(lambda: open_log(options(path)))
        assert status == 1
        assert said.startswith(ConfigurationError.__name__)
        assert str(path) in said

    def test_a_stalled_reader_does_not_hold_up_the_writer(self, path: Path) -> None:
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

        def write() -> None:
            main = open_log(options(path)).channel(DEBUG, "main")
            for _ in range(200):
                main.notice("x" * 1000)

        assert in_child(write) == (0, "")
        os.close(reader)

    @pytest.mark.parametrize(("first", "kept"), [(True, ""), (False, "old\n")])
    def test_overwrite_empties_the_file_at_a_start_alone(self, path: Path, first: bool, kept: str) -> None:
        path.write_text("old\n")
        open_log(options(path, LogMode.OVERWRITE), first=first).close()
        assert path.read_text() == kept


class TestProcesses:
    def test_lines_of_many_processes_do_not_mix(self, path: Path, main: Channel) -> None:
        gate, opening = os.pipe()
        children = []
        for letter in "abc":
            child = os.fork()
            if child == 0:
                bound_life()
                os.close(opening)
                os.read(gate, 1)  # all at once: when the parent has closed its end
                for _ in range(200):
                    main.notice(letter * 900)
                os._exit(0)
            children.append(child)
        os.close(opening)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        os.close(gate)
        texts = [line.rpartition(": ")[2] for line in path.read_text().splitlines()]
        assert sorted(texts) == [letter * 900 for letter in "abc" for _ in range(200)]

    def test_an_adopted_descriptor_takes_the_place_of_the_old(self, path: Path, log: Log) -> None:
        before = log.descriptors()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            fresh = os.open(path.with_name("fresh"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            socket.send_fds(ours, [b"log"], [fresh])
            os.close(fresh)
            log.adopt(socket.recv_fds(theirs, 16, 8)[1])
        log.channel(DEBUG, "main").notice("there")
        assert log.descriptors() == before
        assert not os.get_inheritable(before[0])
        assert path.with_name("fresh").read_text().endswith("LOG5[main]: there\n")
        assert path.read_text() == ""

    def test_what_cannot_be_reopened_stays_in_use(self, path: Path, log: Log) -> None:
        path.rename(path.with_name("rotated"))
        path.mkdir()
        assert log.reopen() == [f"Cannot reopen the log file {path}: Is a directory"]
        log.channel(DEBUG, "main").notice("still here")
        assert path.with_name("rotated").read_text().endswith("still here\n")


class TestClean:
    @pytest.mark.parametrize(
        "text", ["\n", "\r\n", "\x1b[2J", "\x00", "\x7f", "\x85", "\u2028", "\u202e", "\u2066", "\t"]
    )
    def test_nothing_ends_a_line_or_commands_a_terminal(self, text: str) -> None:
        cleaned = clean(f"a{text}b").decode()
        assert cleaned.isprintable()
        assert len(cleaned.splitlines()) == 1

    def test_what_is_no_text_is_shown(self) -> None:
        assert clean("by\udcffte") == b"by\\udcffte"

    @pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
    def test_a_cut_leaves_whole_characters(self, character: str) -> None:
        data = clean("x" + character * TEXT_LIMIT)
        assert TEXT_LIMIT - 4 < len(data) <= TEXT_LIMIT
        assert data.decode() == "x" + character * ((len(data) - 1) // len(character.encode()))
