"""When a stream can be read or written, and when it has hung up: what the event loop says, made reliable.

Pitfall: libuv, under uvloop, stops watching a descriptor that has an error to report (EPOLLERR, after an
RST) and calls its reader one last time. A reader that takes one chunk a time, because data stood before the
RST, would never be called again. So every descriptor is registered a second time, for errors and hang-ups
only and edge-triggered, with an epoll of our own. Nothing of it is seen in the steady state; once a stream
has hung up, its reader is called until it says that there is nothing left, whatever the loop does. The loop
says nothing at all of a stream that is not being read, under back-pressure: an error there ends it at once.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

_EVENTS_AT_ONCE = 64
_READS_AT_ONCE = 8


class Readiness:
    """One worker's event loop, and its second watch on the streams that an `Interest` is kept for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._interests: dict[int, Interest | None] = {}
        self._hung: set[int] = set()
        self._left: set[int] = set()
        self._outputs: dict[int, int] = {}
        loop.add_reader(self._epoll.fileno(), self._take)

    def close(self) -> None:
        """Watch nothing any more."""
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def forget(self, fd: int) -> None:
        """To be called before a descriptor is closed, for its number will be used again.

        The kernel takes it out of the epoll as it is closed (epoll(7)).
        """
        self.take_left(fd)
        self._interests.pop(fd, None)
        self._hung.discard(fd)
        self._outputs.pop(fd, None)

    def leave(self, fd: int) -> None:
        """Note that an interest is over whose reader the loop still has."""
        self._left.add(fd)

    def take_left(self, fd: int, *, replaced: bool = False) -> None:
        """Have the loop call no reader any more that was left; one that is `replaced` is gone already."""
        if fd in self._left:
            self._left.discard(fd)
            if not replaced:
                self.loop.remove_reader(fd)

    def pair(self, fd: int, output: int) -> None:
        """Have what is read at `fd` written at `output`: the two ends of a stream without one descriptor.

        A hang-up of `output` is told by nothing but the next write, as that of a pipe.
        """
        self._outputs[fd] = output

    def output(self, fd: int) -> int:
        """The descriptor that can be written when the stream that is read at `fd` can be."""
        return self._outputs.get(fd, fd)

    def attach(self, interest: Interest) -> bool:
        """Tell `interest` of a hang-up of its descriptor; whether there has been one already."""
        fd = interest.fd
        if fd not in self._interests:
            self._epoll.register(fd, select.EPOLLET)  # errors and hang-ups are always reported
        self._interests[fd] = interest
        return fd in self._hung

    def detach(self, interest: Interest) -> None:
        """Keep the descriptor's hang-up in mind for the next that attaches to it."""
        if self._interests.get(interest.fd) is interest:
            self._interests[interest.fd] = None

    def _take(self) -> None:
        for fd, events in self._epoll.poll(0, _EVENTS_AT_ONCE):
            self._hung.add(fd)
            interest = self._interests.get(fd)
            if interest is not None:
                interest.hung_up(failed=bool(events & select.EPOLLERR))


class Interest:
    """What the owner of one stream wants to hear of it, until `close`.

    `on_readable` takes one read and says whether there was anything to take, an end or an error included.
    `on_failure` is told of an error (an RST) that came while nobody wanted to read.
    """

    __slots__ = (
        "_hung",
        "_loop",
        "_on_failure",
        "_on_readable",
        "_on_writable",
        "_output",
        "_readiness",
        "fd",
        "reading",
        "writing",
    )

    def __init__(
        self,
        readiness: Readiness,
        fd: int,
        on_readable: Callable[[], bool],
        on_writable: Callable[[], None],
        *,
        on_failure: Callable[[], None],
    ) -> None:
        self._readiness = readiness
        self._loop = readiness.loop
        self._on_readable = on_readable
        self._on_writable = on_writable
        self._on_failure = on_failure
        self.fd = fd
        self._output = readiness.output(fd)
        self.reading = self.writing = False
        self._hung = readiness.attach(self)

    def set(self, reading: bool, writing: bool) -> None:
        """Ask for calls from now on. It costs nothing where nothing changes."""
        if reading != self.reading:
            self.reading = reading
            if reading:
                self._loop.add_reader(self.fd, self._on_readable)
                self._readiness.take_left(self.fd, replaced=True)
                if self._hung:
                    self._loop.call_soon(self._read_out)
            else:
                self._loop.remove_reader(self.fd)
        if writing != self.writing:
            self.writing = writing
            if writing:
                self._loop.add_writer(self._output, self._on_writable)
            else:
                self._loop.remove_writer(self._output)

    def hung_up(self, *, failed: bool) -> None:
        """The stream's other end is gone: what it left behind is to be read to the end."""
        self._hung = True
        if failed and not self.reading:
            self._on_failure()
        self._read_out()

    def close(self) -> None:
        """Hear nothing more. The descriptor is still open."""
        self.set(False, False)
        self._readiness.detach(self)
        # The owner holds this object: its methods held here would make a cycle for the collector.
        self._on_readable, self._on_writable, self._on_failure = _nothing_to_read, _nothing, _nothing

    def hand_over(self) -> None:
        """As `close`, for one who reads and whom another follows at once.

        The loop is left as it is, for that costs less than to leave it and come back. Until the other one
        comes, the reader may be called: it is to `lapse` then, and to read nothing.
        """
        if self.reading and not self._hung:
            self.reading = False
            self._readiness.leave(self.fd)
        self.close()

    def lapse(self) -> None:
        """Not to be called as a reader again, also after `hand_over`."""
        self._readiness.take_left(self.fd)
        self.set(False, self.writing)

    def _read_out(self) -> None:
        for _ in range(_READS_AT_ONCE):
            if not (self.reading and self._on_readable()):
                return
        self._loop.call_soon(self._read_out)  # the others' turn


def _nothing_to_read() -> bool:
    return False


def _nothing() -> None:
    return
