"""When changed files lead to a reload: the owner of the watching process, for whoever runs the daemon.

A message of the process, its end, or a deadline leads to a check: the files are compared with what they held
when the running configuration was made. If they differ, a reload is asked for. One that cannot be done, as
with a key that does not match its certificate yet, is tried again at the next change, and a few times
without one, for the last change may have come while the reload was under way.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from culvert.errors import UnusableFileError, os_reason
from culvert.log import Channel
from culvert.watch.files import Places, Watched
from culvert.watch.watcher import CHANGED, FAILED, WATCHING, Watcher


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds in seconds.

    `glance` is from one look at the files to the next at least, `apart` from one reload to the next.
    `retries` are the pauses after a reload that could not be done. A watching process that died is started
    anew after `pause_first`, which doubles up to `pause_last` with each one that dies before it is `settled`.
    """

    glance: float = 0.5
    apart: float = 3.0
    retries: tuple[float, ...] = (5.0, 20.0, 80.0, 320.0)
    pause_first: float = 0.1
    pause_last: float = 60.0
    settled: float = 60.0


TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Host:
    """What is done by whoever runs the daemon.

    `reload` begins a reload; how that went is told by `Renewal.follow` or `Renewal.waits`. `log` gives the
    channel of the running configuration. `hear` has a function called whenever the socket is readable, and
    `ignore` ends that.
    """

    reload: Callable[[], None]
    log: Callable[[], Channel]
    hear: Callable[[socket.socket, Callable[[], None]], None]
    ignore: Callable[[socket.socket], object]


class Renewal:
    """Has files watched and asks for reloads. `act` is to be called when the monotonic clock is at `due`."""

    def __init__(self, host: Host, timing: Timing = TIMING) -> None:
        self._host = host
        self._timing = timing
        self._watched: Watched | None = None
        self._watcher: Watcher | None = None
        self._places: Places | None = None
        self._complaint = ""
        self._born = self._pause = 0.0
        self._start_at = self._check_at = self._retry_at = math.inf
        self._checked = self._reloaded = -math.inf
        self._refused: Watched | None = None
        self._retried = 0
        self._asked = False
        self._told = ""

    @property
    def due(self) -> float:
        """The next deadline; infinite where there is none."""
        return min(self._start_at, self._check_at, self._retry_at)

    def follow(self, watched: Watched | None) -> None:
        """Watch the files of the configuration that runs from now on; None watches nothing."""
        self._watched = watched
        self._refused, self._retried, self._asked, self._told = None, 0, False, ""
        self._retry_at = self._check_at = math.inf
        if watched is None:
            self.end()
            return
        for folder in watched.unlisted():
            self._host.log().warning(f"Changes in {folder} go unnoticed: this user may not list it")
        self._watch(watched.places())
        self._check_soon()

    def waits(self, error: Exception | None) -> bool:
        """Take note that a reload failed; whether that is told by this, for it only waits for its files.

        `error` is why, where there was one.
        """
        if not self._asked:
            return False
        self._asked = False
        if self._retried < len(self._timing.retries):
            self._retry_at = time.monotonic() + self._timing.retries[self._retried]
            self._retried += 1
        if not isinstance(error, UnusableFileError):
            return False
        if str(error) != self._told:
            self._told = str(error)
            for finding in error.diagnostics:
                self._host.log().notice(f"Waiting for files that can be used: {finding}")
        return True

    def act(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._start_at <= now:
            self._start()
        if self._check_at <= now:
            self._check(retry=False)
        elif self._retry_at <= now:
            self._check(retry=True)

    def reaped(self, pid: int, status: int) -> None:
        """Take note of a child that was reaped, where it is the watching process."""
        if self._watcher is not None and self._watcher.pid == pid:
            self._watcher.reaped(status)

    def let_go(self) -> None:
        """In a fork: close what is the parent's."""
        if self._watcher is not None:
            self._watcher.channel.close()

    def end(self) -> None:
        """End the watching process."""
        self._start_at = math.inf
        self._places = None
        if self._watcher is not None:
            self._host.ignore(self._watcher.channel)
            self._watcher.end()
            self._watcher = None

    # Contents.

    def _check_soon(self) -> None:
        # Whoever could make the process talk without end must not keep this one busy by it.
        self._check_at = min(self._check_at, max(time.monotonic(), self._checked + self._timing.glance))

    def _check(self, retry: bool) -> None:
        """Ask for a reload if the files hold what is neither in use nor known not to be usable."""
        self._check_at = math.inf
        if self._watched is None:
            return
        self._checked = time.monotonic()
        found = self._watched.now()
        changed = self._watched.changed(found)
        if not changed:
            self._refused, self._retry_at = None, math.inf
        elif retry or found != self._refused:
            self._ask(found, changed, retry)
        if self._watched is not None:
            self._watch(self._watched.places())

    def _ask(self, found: Watched, changed: list[str], retry: bool) -> None:
        earliest = self._reloaded + self._timing.apart
        if self._checked < earliest and retry:
            self._retry_at = earliest
            return
        if self._checked < earliest:
            self._check_at = earliest
            return
        self._retry_at = math.inf
        self._refused, self._asked, self._reloaded = found, True, time.monotonic()
        if not retry:
            self._retried = 0
            self._host.log().notice(f"Changed: {', '.join(changed)}")
        self._host.reload()

    # The process.

    def _watch(self, places: Places) -> None:
        """Have these places watched, by another process if they are not those that are watched already."""
        if places != self._places:
            self.end()
            self._places = places
            self._start()

    def _start(self) -> None:
        self._start_at = math.inf
        if self._places is None:
            return
        self._born = time.monotonic()
        self._complaint = ""
        try:
            self._watcher = Watcher(self._places.names)
        except OSError as error:
            self._lost(f"Cannot start the process that watches for changed files: {os_reason(error)}")
        else:
            self._host.hear(self._watcher.channel, self._receive)

    def _receive(self) -> None:
        if self._watcher is None:
            return
        message = self._watcher.receive()
        if message == CHANGED:
            self._check_soon()
        elif message == WATCHING:
            self._watching()
        elif message:
            self._complaint = message.removeprefix(FAILED).decode("utf-8", "replace")
        else:
            self._bury(self._watcher)

    def _watching(self) -> None:
        """What changed before the process watched was told by nobody."""
        self._check_soon()
        if self._watcher is not None and self._watched is not None:
            self._host.log().info(
                f"Process {self._watcher.pid} watches {len(self._watched.contents)} path(s) for changes"
            )

    def _bury(self, watcher: Watcher) -> None:
        self._host.ignore(watcher.channel)
        self._watcher = None
        code = watcher.end()
        fate = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        why = f": {self._complaint}" if self._complaint else ""
        self._lost(f"Process {watcher.pid}, which watches for changed files, {fate}{why}")

    def _lost(self, reason: str) -> None:
        recent = time.monotonic() - self._born < self._timing.settled
        last = self._pause if recent else 0.0
        self._pause = min(max(self._timing.pause_first, last * 2), self._timing.pause_last)
        self._start_at = time.monotonic() + self._pause
        self._host.log().warning(f"{reason}; another one is started in {self._pause:g} s")
