"""When changed files lead to a reload: the real watching process, and a host that loads what it is told."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from culvert.config.model import Debug
from culvert.errors import ConfigurationError, UnusableFileError
from culvert.log import FileSink, Log
from culvert.watch import Host, Renewal, Timing, Watched

PATIENCE = 20.0
QUICK = Timing(glance=0.01, apart=0.05, retries=(0.1, 0.2), pause_first=0.02, pause_last=0.1)


class Daemon:
    """Runs a renewal in a loop of its own; `outcome` is what a reload ends with."""

    def __init__(self, folder: Path, timing: Timing) -> None:
        self.file = folder / "cert.pem"
        self.file.write_bytes(b"one")
        self.outcome: Exception | None = None
        self.reloads: list[float] = []
        self._log_file = folder / "log"
        log = Log([FileSink(os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), None)])
        self._selector = selectors.PollSelector()
        host = Host(
            self._reload,
            lambda: log.channel(Debug(7, 3), "main"),
            lambda channel, react: void(self._selector.register(channel, selectors.EVENT_READ, react)),
            self._selector.unregister,
        )
        self.renewal = Renewal(host, timing)
        self.close = log.close

    def _reload(self) -> None:
        self.reloads.append(time.monotonic())
        if self.outcome is None:
            self.follow()
        else:
            self.renewal.waits(self.outcome)

    def follow(self) -> None:
        self.renewal.follow(Watched({str(self.file): b""}).now())

    def log(self, words: str) -> int:
        """How often the log says this."""
        return self._log_file.read_text().count(words)

    def watcher(self) -> int:
        """The process that watches now."""
        return int(re.findall(r"Process (\d+) watches", self._log_file.read_text())[-1])

    def run(self, until: Callable[[], object]) -> None:
        """Live until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline, self._log_file.read_text()
            self._step()

    def _step(self) -> None:
        wait = min(0.1, max(0.0, self.renewal.due - time.monotonic()))
        for key, _ in self._selector.select(wait):
            key.data()
        if self.renewal.due <= time.monotonic():
            self.renewal.act()


def void(_: object) -> None:
    """Takes what a function gives that is to give nothing."""


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[[Timing], Daemon]]:
    """Makes a daemon, and ends what it has begun."""
    with contextlib.ExitStack() as stack:

        def make(timing: Timing) -> Daemon:
            daemon = Daemon(tmp_path, timing)
            stack.callback(daemon.close)
            stack.callback(daemon.renewal.end)
            return daemon

        yield make


@pytest.fixture
def daemon(build: Callable[[Timing], Daemon]) -> Daemon:
    """A daemon whose file is watched."""
    daemon = build(QUICK)
    daemon.follow()
    daemon.run(lambda: daemon.log("watches 1 path(s)"))
    return daemon


def test_a_change_is_taken_into_use_once(daemon: Daemon) -> None:
    daemon.file.write_bytes(b"two")
    daemon.run(lambda: daemon.reloads)
    daemon.file.touch()
    daemon.file.write_bytes(b"three")
    daemon.run(lambda: len(daemon.reloads) == 2)
    assert daemon.log(f"Changed: {daemon.file}\n") == 2


def test_a_change_before_it_is_watched_is_found(build: Callable[[Timing], Daemon]) -> None:
    daemon = build(QUICK)
    before = Watched({str(daemon.file): b""}).now()
    daemon.file.write_bytes(b"two")
    daemon.renewal.follow(before)
    daemon.run(lambda: daemon.reloads)


def test_a_file_that_cannot_be_used_is_waited_for(daemon: Daemon) -> None:
    daemon.outcome = UnusableFileError.single("no match")
    daemon.file.write_bytes(b"two")
    daemon.run(lambda: len(daemon.reloads) == 3)  # the change, and two retries
    assert daemon.renewal.due == float("inf")
    assert daemon.log("LOG5[main]: Waiting for files that can be used: no match") == 1
    daemon.outcome = None
    daemon.file.write_bytes(b"three")
    daemon.run(lambda: len(daemon.reloads) == 4)


def test_a_file_that_went_back_is_no_longer_waited_for(daemon: Daemon) -> None:
    daemon.outcome = UnusableFileError.single("no match")
    daemon.file.write_bytes(b"two")
    daemon.run(lambda: daemon.reloads)
    daemon.file.write_bytes(b"one")
    count = len(daemon.reloads)
    daemon.run(lambda: daemon.renewal.due == float("inf"))
    assert len(daemon.reloads) <= count + len(QUICK.retries)


def test_another_failure_is_told_by_the_host_and_tried_again(daemon: Daemon) -> None:
    daemon.outcome = ConfigurationError.single("misspelt")
    daemon.file.write_bytes(b"two")
    daemon.run(lambda: daemon.reloads)
    daemon.outcome = None
    daemon.run(lambda: len(daemon.reloads) == 2)
    assert daemon.log("Waiting") == 0


def test_a_failure_of_a_reload_that_others_asked_for_is_theirs(daemon: Daemon) -> None:
    assert not daemon.renewal.waits(UnusableFileError.single("no match"))
    assert daemon.log("Waiting") == 0


def test_reloads_keep_apart(build: Callable[[Timing], Daemon]) -> None:
    daemon = build(Timing(glance=0.01, apart=1.0))
    daemon.follow()
    for content in (b"two", b"three"):
        daemon.file.write_bytes(content)
        count = len(daemon.reloads)
        daemon.run(lambda count=count: len(daemon.reloads) > count)  # type: ignore[misc]
    assert daemon.reloads[1] - daemon.reloads[0] > 0.95


def test_a_process_that_dies_is_replaced_more_and_more_slowly(daemon: Daemon) -> None:
    for number, pause in enumerate(("0.02", "0.04", "0.08", "0.1", "0.1"), start=2):
        os.kill(daemon.watcher(), signal.SIGKILL)
        daemon.run(lambda number=number: daemon.log("watches 1 path(s)") == number)  # type: ignore[misc]
        assert daemon.log(f"was killed by signal 9; another one is started in {pause} s")


def test_nothing_is_watched_any_more(daemon: Daemon) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all
    daemon.renewal.follow(None)
    assert daemon.renewal.due == float("inf")
    assert len(os.listdir("/proc/self/fd")) == before - 1  # noqa: PTH208
