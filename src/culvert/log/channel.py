"""What the rest of Culvert writes to: the log of a process, and channels with a level and an identity."""

from __future__ import annotations

import functools
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence

from culvert.config.model import Debug
from culvert.errors import os_reason
from culvert.log.lines import Entry, Fields, Level, Lines, TextLines
from culvert.log.sinks import Sink

HELD_LIMIT = 32
"""Lines that a channel holds back at most: a connection that waits for its client has fewer."""


class Threshold:
    """Up to which level lines are written: one for all channels of a service, so that it can be changed."""

    __slots__ = ("level",)

    def __init__(self, level: int) -> None:
        self.level = level


class Log:
    """All the sinks of a process, and the levels of its services."""

    def __init__(self, sinks: Sequence[Sink], lines: Lines | None = None) -> None:
        self._sinks = tuple(sinks)
        self._lines = TextLines() if lines is None else lines
        self._thresholds: dict[str | None, Threshold] = {}
        self._level_of_all: int | None = None

    @property
    def structured(self) -> bool:
        """Whether an entry's fields are written: what is in them need not be in another line."""
        return self._lines.structured

    def channel(self, debug: Debug, ident: str, service: str | None = None) -> Channel:
        """A channel of a service, or of the daemon itself, under the identity `ident`.

        It lets through what `debug` allows, unless `set_level` has said otherwise.
        """
        level = debug.level if self._level_of_all is None else self._level_of_all
        threshold = self._thresholds.setdefault(service, Threshold(level))
        return Channel(self, threshold, debug.facility, ident, service)

    def set_level(self, level: int, service: str | None = None) -> None:
        """Change what is written from now on, also of connections that are open: of one service, or where
        none is named of all of them and the daemon. A reload goes back to what the configuration says.
        """
        if service is not None:
            self._thresholds.setdefault(service, Threshold(level)).level = level
            return
        self._level_of_all = level
        for threshold in self._thresholds.values():
            threshold.level = level

    def write(self, entry: Entry) -> None:
        line = self._lines.line(entry)
        for sink in self._sinks:
            sink.write(entry, line)

    def lost(self) -> Counter[str]:
        """How many lines this process could not write, by the kind of their sink."""
        found: Counter[str] = Counter()
        for sink in self._sinks:
            found[sink.kind] += sink.losses.total
        return +found

    def count_losses(self, count: Callable[[str], None]) -> None:
        """Have `count` called with the kind of the sink (one of `KINDS`) for each line that is lost."""
        for sink in self._sinks:
            sink.losses.on_loss = functools.partial(count, sink.kind)

    def begin_anew(self) -> None:
        """To be called in a forked process: what was lost before is its parent's to tell of."""
        for sink in self._sinks:
            sink.losses.total = sink.losses.untold = 0

    def reopen(self) -> list[str]:
        """Open files and syslog again (SIGUSR1); returns what could not be opened, one sentence each."""
        failures = []
        for sink in self._sinks:
            try:
                sink.reopen()
            except OSError as error:
                failures.append(f"Cannot reopen {sink}: {os_reason(error)}")
        return failures

    def enter_jail(self) -> None:
        """To be called by a process that has entered the jail and is to reopen its log there."""
        for sink in self._sinks:
            sink.enter_jail()

    def descriptors(self) -> list[int]:
        """The descriptors to hand to another process's `adopt`, in its order."""
        return [sink.fd for sink in self._sinks]

    def adopt(self, descriptors: Sequence[int]) -> None:
        """Take over the descriptors that the `descriptors` of a like-built log gave; all are consumed."""
        for sink, fd in zip(self._sinks, descriptors, strict=True):
            sink.adopt(fd)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def shown(lost: Counter[str]) -> str:
    """Losses for the log, by the kind of their sink."""
    return ", ".join(f"{count} for {kind}" for kind, count in sorted(lost.items()))


def changed(level: int, service: str | None) -> str:
    """What the log says of a `Log.set_level`."""
    whose = "the daemon and all services" if service is None else f"service [{service}]"
    return f"The log level of {whose} is {Level(level).name.lower()} until the next reload"


class Channel:
    """Where one part of Culvert, or one connection, writes its lines."""

    __slots__ = ("_connection", "_facility", "_held", "_log", "_threshold", "ident", "service")

    def __init__(
        self, log: Log, threshold: Threshold, facility: int, ident: str, service: str | None
    ) -> None:
        self._log = log
        self._threshold = threshold
        self._facility = facility
        self._connection = False
        self._held: list[Entry] | None = None
        self.ident = ident
        self.service = service

    def named(self, ident: str) -> Channel:
        """The same channel for one connection, of this identity."""
        other = Channel(self._log, self._threshold, self._facility, ident, self.service)
        other._connection = True
        return other

    @property
    def structured(self) -> bool:
        """As of `Log`."""
        return self._log.structured

    def enabled(self, level: int) -> bool:
        """Whether a line of this level would be written: to be asked before a costly text is made."""
        return level <= self._threshold.level

    def write(self, level: int, text: str, fields: Fields | None = None) -> None:
        if level > self._threshold.level:
            return
        entry = Entry(level, self._facility, self.ident, text, self.service, self._connection, fields)
        if self._held is not None:
            if level > Level.WARNING and len(self._held) < HELD_LIMIT:
                self._held.append(entry)
                return
            self.release()
        self._log.write(entry)

    def hold(self) -> None:
        """Keep lines back, up to a warning or worse, until it is known what they are worth."""
        self._held = []

    def release(self, level: int | None = None) -> None:
        """Write what was held back, and hold nothing any more; with `level`, as lines of that level."""
        held, self._held = self._held, None
        for entry in held or ():
            if level is None:
                self._log.write(entry)
            elif level <= self._threshold.level:
                self._log.write(entry._replace(level=level))

    def critical(self, text: str) -> None:
        self.write(Level.CRIT, text)

    def fault(self, who: str, error: BaseException | None = None) -> None:
        """Log `error`, or the exception at hand, with its traceback, as a fault of Culvert's own."""
        self.critical(
            f"{who} failed by a fault of culvert itself: please report it with the lines that follow"
        )
        for part in traceback.format_exception(error or sys.exception()):
            for line in part.splitlines():
                self.critical(line)

    def error(self, text: str) -> None:
        self.write(Level.ERR, text)

    def warning(self, text: str) -> None:
        self.write(Level.WARNING, text)

    def notice(self, text: str) -> None:
        self.write(Level.NOTICE, text)

    def info(self, text: str) -> None:
        self.write(Level.INFO, text)

    def debug(self, text: str) -> None:
        self.write(Level.DEBUG, text)
