"""Where log lines go: files, standard streams, and the local syslog daemon.

A sink that fails loses lines, counts them, and says how many once it works again; it never raises, and
waits for a reader no longer than `Patience` allows. The descriptors are opened outside the jail and keep
their numbers for life: a reopened file takes its predecessor's number, so a worker needs no path, only the
new descriptor.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Callable

from culvert.description import open_anew
from culvert.jail import Place
from culvert.log.lines import Entry, Level, Lines, TextLines, clean
from culvert.log.patience import Patience

SYSLOG_PATH = "/dev/log"
_RECONNECT_PAUSE = 1.0
_NOTICE_PAUSE = 1.0


KINDS = ("file", "stderr", "stdout", "syslog")
"""What losses are counted by: where the lines were to go."""


def _nothing() -> None:
    pass


class Losses:
    """The lines that a sink has lost in this process: all of them, and those that it has not told of yet."""

    __slots__ = ("on_loss", "total", "untold")

    def __init__(self) -> None:
        self.total = 0
        self.untold = 0
        self.on_loss: Callable[[], None] = _nothing
        """Called for each of them."""

    def add(self) -> None:
        self.total += 1
        self.untold += 1
        self.on_loss()

    def entry(self, facility: int) -> Entry:
        """What tells of those that nobody was told of."""
        text = f"{self.untold} log line(s) before this one could not be written"
        return Entry(Level.WARNING, facility, "main", text)


class FileSink:
    """Lines on a descriptor: a file opened for appending, or a standard stream."""

    def __init__(self, fd: int, place: Place | None, lines: Lines | None = None, kind: str = "file") -> None:
        """`place` is where to open it again; None for what has no such place, a standard stream. `kind` is
        what its losses are counted by."""
        self.fd = fd
        self.kind = kind
        self.losses = Losses()
        self._lines = TextLines() if lines is None else lines
        self._place = place
        self._patience = Patience()
        self._torn = False
        self._send = self._sender(fd)

    def write(self, entry: Entry, line: bytes) -> None:
        """Write one entry; `line` is what `Lines.line` made of it."""
        losses = self.losses
        data = self._start(entry.level) + line + b"\n"
        if losses.untold:  # in one write with the line: a full pipe may have room for the smaller of two
            told = losses.entry(entry.facility)
            data = self._start(told.level) + self._lines.line(told) + b"\n" + data
        if self._put(b"\n" + data if self._torn else data):
            losses.untold = 0
        else:
            losses.add()

    def _put(self, data: bytes) -> bool:
        try:
            try:
                written = self._send(data)
            except BlockingIOError:
                if not self._patience.wait(self.fd):
                    return False
                written = self._send(data)
        except OSError:
            return False
        self._patience.reward()
        self._torn = written < len(data)  # a disk that became full
        return not self._torn

    def _start(self, level: int) -> bytes:
        """What stands in front of a line."""
        return self._lines.stamp()

    def _sender(self, fd: int) -> Callable[[bytes], int]:
        """How to write without waiting, whatever the flags of the descriptor say: others may share them."""
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            return self._send_to_socket
        waits = os.get_blocking(fd) and (stat.S_ISFIFO(mode) or os.isatty(fd))
        return self._write_if_ready if waits else self._write

    def _write(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def _write_if_ready(self, data: bytes) -> int:
        # For what cannot be opened anew. Of two processes that see the same room, the second waits.
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(self.fd, data)

    def _send_to_socket(self, data: bytes) -> int:
        sock = socket.socket(fileno=self.fd)
        try:
            return sock.send(data, socket.MSG_DONTWAIT)
        finally:
            sock.detach()

    def reopen(self) -> None:
        """Open the path again under the same descriptor. Raises OSError and leaves the old file in use."""
        if self._place is not None:
            self.adopt(open_for_append(self._place))

    def enter_jail(self) -> None:
        """Find the file from now on where it is for a process inside the jail."""
        if self._place is not None:
            self._place = self._place.in_jail()

    def adopt(self, fd: int) -> None:
        """Write to a descriptor that another process opened; `fd` itself is closed."""
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self._send = self._sender(self.fd)

    def close(self) -> None:
        os.close(self.fd)

    def __str__(self) -> str:
        return f"the log file {self._place}" if self._place is not None else self.kind


class JournalSink(FileSink):
    """Lines on a standard stream that is the journal's: it has the time itself, and takes the level from the
    front of the line (sd-daemon(3)).
    """

    def _start(self, level: int) -> bytes:
        return b"<%d>" % level


class SyslogSink:
    """Datagrams to the local syslog daemon, in the form that syslog(3) sends without LOG_PID."""

    kind = "syslog"

    def __init__(self, ident: str, lines: Lines | None = None) -> None:
        self.losses = Losses()
        self._ident = clean(ident)
        self._lines = TextLines() if lines is None else lines
        self._patience = Patience()
        self._socket = _datagram_socket()
        self._next_attempt = self._next_notice = 0.0
        self._connect()

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def write(self, entry: Entry, line: bytes) -> None:
        """Send one entry; `line` is what `Lines.line` made of it."""
        losses, now = self.losses, time.monotonic()
        if losses.untold and now >= self._next_notice:  # or a slow reader would hear of little else
            told = losses.entry(entry.facility)
            if not self._put(told, self._lines.line(told)):
                losses.add()
                return
            losses.untold = 0
            self._next_notice = now + _NOTICE_PAUSE
        if not self._put(entry, line):
            losses.add()

    def _put(self, entry: Entry, line: bytes) -> bool:
        stamp = time.strftime("%b %e %H:%M:%S", time.localtime()).encode("ascii")
        message = b"<%d>%b %b: %b" % (entry.facility << 3 | entry.level, stamp, self._ident, line)
        sent = self._send(message)
        if sent:
            self._patience.reward()
        return sent

    def _send(self, message: bytes) -> bool:
        for attempt in range(2):
            try:
                self._socket.send(message)
            except BlockingIOError:  # it does not read
                if attempt or not self._patience.wait(self.fd):
                    return False
            except OSError:  # it is gone, perhaps to come back at once
                if attempt or not self._connect():
                    return False
            else:
                return True
        return False

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


def open_for_append(place: Place, *, truncate: bool = False) -> int:
    """A descriptor for the log file. Neither to open a pipe nor to write to one waits for a reader."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return place.open(flags | (os.O_TRUNC if truncate else 0), 0o640)


def standard_stream(number: int, lines: Lines) -> FileSink:
    """Standard output or standard error: a description of our own, which need not wait, or a duplicate."""
    own = open_anew(number, os.O_WRONLY)
    if own is None:
        own = os.dup(number)  # a socket, a file, or what may not be opened by its name in /proc
        os.set_inheritable(own, False)
    sink = JournalSink if is_journal(number) else FileSink
    return sink(own, None, lines, "stdout" if number == 1 else "stderr")


def is_journal(fd: int) -> bool:
    """Whether a descriptor is the stream of the journal that JOURNAL_STREAM names (systemd.exec(5)).

    The variable alone proves nothing: it is inherited by who has other streams.
    """
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _datagram_socket() -> socket.socket:
    fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    fresh.setblocking(False)
    return fresh
