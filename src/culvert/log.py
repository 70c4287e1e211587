"""The log: stunnel's line formats, written to a file, to standard error and to syslog.

A `Log` holds the sinks; a `Channel` is what the rest of Culvert writes to: a level, a facility and the
identity that stands in brackets. A sink that fails loses lines, counts them and says so once it works
again; it never raises and never blocks a connection on a dead syslog daemon. The descriptors are opened
outside the jail and keep their numbers for life: a reopened file takes its predecessor's number, so a
worker needs no path, only the new descriptor (`Log.descriptors`, `Log.adopt`).
"""

from __future__ import annotations

import enum
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Sequence

from culvert.config.model import Debug, Foreground, GlobalOptions, LogMode
from culvert.errors import ConfigurationError, os_reason
from culvert.jail import Place

TEXT_LIMIT = 1024
"""Longest text of a line in bytes, as stunnel has it: a peer must not be able to flood a log by one line."""

SYSLOG_PATH = "/dev/log"
_RECONNECT_PAUSE = 1.0
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""The last ones turn the direction of writing: what follows them in a line would be read in another order."""

_STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}


class Level(enum.IntEnum):
    """Syslog's levels (RFC 5424, 6.2.1)."""

    EMERG = 0
    ALERT = 1
    CRIT = 2
    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


def clean(text: str) -> bytes:
    """Any text as bytes that are safe in a line: control characters become dots, the length is bounded."""
    if not text.isprintable():
        text = _CONTROL.sub(".", text)
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > TEXT_LIMIT:
        data = data[:TEXT_LIMIT].decode("utf-8", "ignore").encode()
    return data


class FileSink:
    """Lines on a descriptor: a file opened for appending, or a standard stream."""

    def __init__(self, fd: int, place: Place | None) -> None:
        """`place` is where to open it again; None for what has no such place, a standard stream."""
        self.fd = fd
        self._place = place
        self._lost = 0
        self._torn = False
        self._second = -1
        self._stamp = b""

    def write(self, level: int, facility: int, tag: bytes, text: bytes) -> None:
        """Write one line; `tag` is `LOG5[ID]: `."""
        start = self._now() + tag
        line = start + text + b"\n"
        if self._lost:
            line = start + b"%d log line(s) before this one could not be written\n" % self._lost + line
        if self._torn:
            line = b"\n" + line
        try:
            written = os.write(self.fd, line)
        except OSError:
            self._lost += 1
            return
        self._torn = written < len(line)  # a disk that became full
        self._lost = self._lost + 1 if self._torn else 0

    def _now(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y.%m.%d %H:%M:%S ", time.localtime(second)).encode("ascii")
        return self._stamp

    def reopen(self) -> None:
        """Open the path again under the same descriptor. Raises OSError and leaves the old file in use."""
        if self._place is not None:
            self.adopt(_open_for_append(self._place))

    def enter_jail(self) -> None:
        """Find the file from now on where it is for a process inside the jail."""
        if self._place is not None:
            self._place = self._place.in_jail()

    def adopt(self, fd: int) -> None:
        """Write to a descriptor that another process opened; `fd` itself is closed."""
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)

    def close(self) -> None:
        os.close(self.fd)

    def __str__(self) -> str:
        return f"the log file {self._place}"


class SyslogSink:
    """Datagrams to the local syslog daemon, in the form that syslog(3) sends without LOG_PID."""

    def __init__(self, ident: str) -> None:
        self._ident = clean(ident)
        self._socket = _datagram_socket()
        self._next_attempt = 0.0
        self._connect()

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def write(self, level: int, facility: int, tag: bytes, text: bytes) -> None:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime()).encode("ascii")
        message = b"<%d>%b %b: %b%b" % (facility << 3 | level, stamp, self._ident, tag, text)
        try:
            self._socket.send(message)
        except BlockingIOError:
            return  # a daemon that does not read loses lines; it must not hold up a connection
        except OSError:
            if self._connect():
                self._send_again(message)

    def _send_again(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError:
            return  # gone again within the same moment: the next line tries anew

    def _connect(self) -> bool:
        """Connect, but not within a second of a failure: in a jail without /dev/log this cannot succeed."""
        now = time.monotonic()
        if now < self._next_attempt:
            return False
        try:
            self._socket.connect(SYSLOG_PATH)
        except OSError:
            self._next_attempt = now + _RECONNECT_PAUSE
            return False
        return True

    def reopen(self) -> None:
        """Connect a fresh socket under the same descriptor."""
        fresh = _datagram_socket()
        os.dup2(fresh.fileno(), self.fd, inheritable=False)
        fresh.close()
        self._next_attempt = 0.0
        self._connect()

    def enter_jail(self) -> None:
        """Nothing changes: the socket is connected, and its path is where the jail has a /dev/log."""

    def adopt(self, fd: int) -> None:
        """Send over a socket that another process connected; `fd` itself is closed."""
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)

    def close(self) -> None:
        self._socket.close()

    def __str__(self) -> str:
        return "the connection to syslog"


Sink = FileSink | SyslogSink


class Log:
    """All the sinks of a process."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)
        self.level: int | None = None
        """What is logged instead of what `debug` says, where that was changed while running."""

    def channel(self, debug: Debug, ident: str) -> Channel:
        """A channel that lets through what `debug` allows, under the identity `ident`."""
        return Channel(self, debug.level if self.level is None else self.level, debug.facility, ident)

    def write(self, level: int, facility: int, ident: str, text: str) -> None:
        tag = b"LOG%d[%b]: " % (level, clean(ident))
        data = clean(text)
        for sink in self._sinks:
            sink.write(level, facility, tag, data)

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


class Channel:
    """Where one part of Culvert, or one connection, writes its lines."""

    __slots__ = ("_facility", "_log", "ident", "level")

    def __init__(self, log: Log, level: int, facility: int, ident: str) -> None:
        self._log = log
        self.level = level
        self._facility = facility
        self.ident = ident

    def named(self, ident: str) -> Channel:
        """The same channel under another identity."""
        return Channel(self._log, self.level, self._facility, ident)

    def enabled(self, level: int) -> bool:
        """Whether a line of this level would be written: to be asked before a costly text is made."""
        return level <= self.level

    def write(self, level: int, text: str) -> None:
        if level <= self.level:
            self._log.write(level, self._facility, self.ident, text)

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


def open_log(options: GlobalOptions, *, first: bool = True, jailed: bool = False) -> Log:
    """The log that the global options ask for.

    `first` is false on a reload, where `log = overwrite` must not empty the file that is in use; `jailed`
    is for a process that is in the jail already. Raises ConfigurationError when `output` cannot be opened.
    """
    sinks: list[Sink] = []
    if options.output is not None:
        place = Place(options.chroot, options.output)
        sinks.append(_open_output(options, options.output, place.in_jail() if jailed else place, first))
    if options.foreground is Foreground.YES:
        sinks.append(FileSink(_duplicate(2), None))
    if options.syslog:
        sinks.append(SyslogSink(options.service))
    return Log(sinks)


def _open_output(options: GlobalOptions, output: str, place: Place, first: bool) -> FileSink:
    if output in _STANDARD_STREAMS:  # duplicated, for a socket or a pipe cannot be opened by this name
        return FileSink(_duplicate(_STANDARD_STREAMS[output]), None)
    try:
        fd = _open_for_append(place, truncate=first and options.log is LogMode.OVERWRITE)
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot open the log file {place}: {os_reason(error)}",
            options.locations.get("output"),
            hint="'output' is opened for appending, inside 'chroot' where that is set; a pipe needs a reader",
        ) from None
    return FileSink(fd, place)


def _open_for_append(place: Place, *, truncate: bool = False) -> int:
    """A descriptor for the log file. Neither to open a pipe nor to write to one waits for a reader."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return place.open(flags | (os.O_TRUNC if truncate else 0), 0o640)


def _duplicate(fd: int) -> int:
    duplicate = os.dup(fd)
    os.set_inheritable(duplicate, False)
    return duplicate


def _datagram_socket() -> socket.socket:
    fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    fresh.setblocking(False)
    return fresh
