"""The log on a stream that is the journal's: no time of our own, the level in front, and each line once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

import pytest

from culvert.config.model import Foreground
from culvert.log import is_journal, open_log

from ..options import DEBUG, OPTIONS

IN_FRONT = dataclasses.replace(OPTIONS, foreground=Foreground.YES, syslog=True)


def named(fd: int) -> str:
    """A stream as JOURNAL_STREAM names it."""
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}"


@contextlib.contextmanager
def journal(stream: str | None = "own") -> Iterator[int]:
    """The reading end of a pipe that is standard error; JOURNAL_STREAM names it, or says `stream`."""
    before = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("JOURNAL_STREAM", raising=False)
        if stream is not None:
            environment.setenv("JOURNAL_STREAM", named(2) if stream == "own" else stream)
        try:
            yield reader
        finally:
            os.dup2(before, 2)
            os.close(before)
            os.close(reader)


def test_a_line_has_its_level_and_no_time() -> None:
    with journal() as stream:
        log = open_log(IN_FRONT)
        log.channel(DEBUG, "main").warning("words")
        log.channel(DEBUG, "7").info("more")
        log.close()
        assert os.read(stream, 4096) == b"<4>LOG4[main]: words\n<6>LOG6[7]: more\n"


@pytest.mark.parametrize("foreground", [Foreground.YES, Foreground.QUIET])
def test_syslog_would_say_it_twice(foreground: Foreground) -> None:
    with journal():
        log = open_log(dataclasses.replace(IN_FRONT, foreground=foreground))
        assert len(log.descriptors()) == 1  # standard error alone, or syslog alone
        log.close()


def test_standard_error_by_its_name_is_the_same_stream() -> None:
    with journal() as stream:
        log = open_log(dataclasses.replace(OPTIONS, output="/dev/stderr", syslog=True))
        log.channel(DEBUG, "main").error("words")
        log.close()
        assert os.read(stream, 4096) == b"<3>LOG3[main]: words\n"


@pytest.mark.parametrize("value", ["", "1:1", "words", None])
def test_another_stream_has_the_time_and_syslog_beside_it(value: str | None) -> None:
    with journal(value) as stream:
        assert not is_journal(2)
        log = open_log(IN_FRONT)
        assert len(log.descriptors()) == 2
        log.channel(DEBUG, "main").info("words")
        log.close()
        line = os.read(stream, 4096)
    assert re.fullmatch(rb"\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d LOG6\[main\]: words\n", line)


def test_a_closed_descriptor_is_no_journal() -> None:
    assert not is_journal(1000)
