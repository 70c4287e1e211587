"""What a process that serves tells those who trace: the events of its connections, as lines of a stream.

A reader may be as slow as he likes. What he has not taken waits in the stream's own buffer and in his
subscription, up to its bound, and what comes then is counted as lost: no connection ever waits for him.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence

from culvert.control import JOIN, Request
from culvert.service import RunningService
from culvert.trace import Joined, TraceEvent, Tracing, to_line
from culvert.trace.tracing import Choice

SLICE = 64 * 1024
"""Bytes of events that are written as lines in one turn of the event loop: about a millisecond's work."""

LAST_WORDS = 0.5
"""Seconds for which a reader may take what is left when this process ends."""


class Feed:
    """The events for one reader. It ends by itself when he goes; else `finish` it, or `close` it at once."""

    def __init__(
        self,
        tracing: Tracing,
        request: Request,
        services: Sequence[RunningService],
        stream: socket.socket,
        on_end: Callable[[Feed], None],
    ) -> None:
        """Tell of the connections of those services that may be traced; `stream` is closed at the end."""
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._on_end = on_end
        self._open = True
        self._blocked = False
        chosen = Choice([one.config.name for one in services], request.ident or None)
        missed = sum(
            chosen.includes(connection.service, connection.ident)
            for service in services
            for connection in service.connections.values()
        )
        self._waiting = memoryview(_lines([Joined(time.monotonic(), os.getpid(), missed)]))
        self._subscription = tracing.subscribe(request.wants, self._wake, chosen)
        stream.setblocking(False)
        # He says nothing: what can be read is his end.
        self._loop.add_reader(stream.fileno(), self.close)
        self._wake()

    def close(self) -> None:
        """Tell nothing more."""
        if self._open:
            self._open = False
            self._subscription.close()
            self._let_go()
            self._stream.close()
            self._on_end(self)

    async def finish(self) -> None:
        """Tell what is left, as far as it is taken in time, and close."""
        if not self._open:
            return
        self._open = False
        self._let_go()
        with contextlib.suppress(OSError):  # a time-out is one of them
            async with asyncio.timeout(LAST_WORDS):
                while self._waiting or self._more():
                    waiting, self._waiting = self._waiting, memoryview(b"")
                    await self._loop.sock_sendall(self._stream, waiting)
        self._subscription.close()
        self._stream.close()
        self._on_end(self)

    def _wake(self) -> None:
        self._loop.call_soon(self._write)

    def _write(self) -> None:
        """Write as much as goes, one slice at a time."""
        if not self._open or self._blocked:
            return
        if not self._waiting and not self._more():
            return
        try:
            self._waiting = self._waiting[self._stream.send(self._waiting) :]
        except BlockingIOError:
            self._blocked = True
            self._loop.add_writer(self._stream.fileno(), self._unblock)
        except OSError:
            self.close()
        else:
            self._wake()

    def _unblock(self) -> None:
        self._blocked = False
        self._loop.remove_writer(self._stream.fileno())
        self._write()

    def _more(self) -> bool:
        """Take the next events; whether there were any."""
        self._waiting = memoryview(_lines(self._subscription.take(SLICE)))
        return bool(self._waiting)

    def _let_go(self) -> None:
        self._loop.remove_reader(self._stream.fileno())
        if self._blocked:
            self._loop.remove_writer(self._stream.fileno())


class Feeds:
    """All that one process tells of the connections that it serves."""

    def __init__(self, tracing: Tracing, services: Sequence[RunningService]) -> None:
        self._tracing = tracing
        self._services = services
        self._feeds: set[Feed] = set()

    def attach(self, request: Request, sock: socket.socket) -> None:
        """Tell what a TRACE asks for, as far as the services' `trace` allows it. `sock`, by which the reader
        gets the stream, is closed.
        """
        allowed = [
            one for one in self._services if one.config.trace and request.service in (None, one.config.name)
        ]
        with sock:
            stream = _give_stream(sock) if allowed else None
        if stream is not None:
            self._feeds.add(Feed(self._tracing, request, allowed, stream, self._feeds.discard))

    async def finish(self) -> None:
        """Tell what is left, and end."""
        await asyncio.gather(*(feed.finish() for feed in self._feeds))


def _give_stream(sock: socket.socket) -> socket.socket | None:
    """Our end of a stream whose other end is sent by `sock`; None where that cannot be."""
    try:
        ours, theirs = socket.socketpair()
    except OSError:  # descriptors have run out: clients need them more
        return None
    with theirs:
        try:
            sock.setblocking(False)
            socket.send_fds(sock, [JOIN], [theirs.fileno()])
        except OSError:
            ours.close()
            return None
    return ours


def _lines(events: Sequence[TraceEvent]) -> bytes:
    return "".join(f"{to_line(event)}\n" for event in events).encode()
