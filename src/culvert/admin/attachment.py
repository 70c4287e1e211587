"""A trace of the running daemon, as its reader gets it: the streams of all processes that serve, in one.

Each process brings a stream of its own (`feed`), those included that begin to serve while the trace lasts.
They are merged by whole lines. Nothing is kept here but a few pieces: who reads slowly is waited for, and the
streams fill up.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from types import TracebackType
from typing import Self

from culvert.admin.request import Refused
from culvert.control import JOIN
from culvert.trace.events import LINE_LIMIT

PATIENCE = 3.0
"""Seconds for the first process to bring its stream."""

LAST_WORDS = 1.0
"""Seconds for the reader to take what is left when the last process has ended."""

PROCESSES = 1024
"""Most processes that bring a stream in one trace: a reload's and more, and far less than there are
descriptors."""

_PIECE = 64 * 1024
PIECES = 4
"""Most pieces that wait to be taken; behind that the processes are not read."""


class Attachment:
    """One trace. Use it as an asynchronous context manager; once `joined`, iterate over `pieces`."""

    content_type = "application/x-ndjson"

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is the other end of the one that was passed on to the processes; it is closed at the end."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._heard: asyncio.Future[bool] = self._loop.create_future()
        self._streams: set[asyncio.Task[None]] = set()
        self._complete = False
        """Whether nobody can bring another stream."""
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._take_stream)

    async def joined(self) -> None:
        """Return once somebody has brought a stream. Raises Refused where nobody does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                if await asyncio.shield(self._heard):
                    return
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "nobody gives a trace: there are too many at a time, or the daemon is about to end",
        )

    async def pieces(self) -> AsyncIterator[bytes]:
        """What there is to see, in whole lines, to the end of the last process."""
        while True:
            while self._pieces:
                yield self._pieces.popleft()
                self._room.set()
            if self._complete and not self._streams:
                return
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        streams = list(self._streams)
        for task in streams:
            task.cancel()
        if streams:
            await asyncio.wait(streams)

    def _take_stream(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._sock, len(JOIN) + 1, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._close()
        brought = [socket.socket(fileno=one) for one in descriptors]
        welcome = message == JOIN and len(self._streams) < PROCESSES
        for stream in brought:
            if welcome:
                self._begin(stream)
            else:
                stream.close()
        if not self._heard.done():
            self._heard.set_result(bool(self._streams))

    def _close(self) -> None:
        if not self._complete:
            self._complete = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._changed.set()

    def _begin(self, stream: socket.socket) -> None:
        task = self._loop.create_task(self._follow(stream))
        self._streams.add(task)
        task.add_done_callback(functools.partial(self._end, stream))

    def _end(self, stream: socket.socket, task: asyncio.Task[None]) -> None:
        stream.close()
        self._streams.discard(task)
        self._changed.set()

    async def _follow(self, stream: socket.socket) -> None:
        """Hand on the lines of one process."""
        stream.setblocking(False)
        rest = b""
        while len(rest) <= LINE_LIMIT and (data := await self._receive(stream)):
            lines, end, rest = (rest + data).rpartition(b"\n")
            while end and len(self._pieces) >= PIECES:
                self._room.clear()
                await self._room.wait()
            if end:
                self._pieces.append(lines + end)
                self._changed.set()

    async def _receive(self, stream: socket.socket) -> bytes:
        """The next bytes; none at the end."""
        try:
            return await self._loop.sock_recv(stream, _PIECE)
        except OSError:
            return b""
