"""Runs a protocol's scripts over streams: what `negotiate` describes, done in clear or inside TLS.

Exactly what a script asks for is taken from a stream, so that nothing has to be handed on to the handshake
or to the relay: a socket is looked into before it is read, the TLS engine keeps what was not asked for, and
a stream that cannot be looked into (a terminal, a pipe) is read byte by byte.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol

from culvert.address import HostPort
from culvert.errors import BackendError, os_reason
from culvert.log import Channel
from culvert.negotiate.script import (
    Connect,
    Discard,
    Exactly,
    Line,
    NegotiationError,
    Note,
    Peek,
    Script,
    Send,
    Side,
)
from culvert.readiness import Interest, Readiness
from culvert.relay import Stream
from culvert.tls.engine import RECORD, Engine, Status

DISCARD_LIMIT = 256 * 1024
"""Most bytes that a peer may send too early: somebody who sends more than fits into a socket's buffer
without waiting for an answer does not speak the protocol."""


class Peer(Protocol):
    """One side of a conversation. What it raises is a NegotiationError or an OSError."""

    async def line(self, limit: int) -> bytes:
        """The next line without its end, which is an LF or a CRLF."""

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""

    async def peek(self) -> bytes:
        """The next byte, which stays; nothing where the stream cannot be looked into."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    def discard(self) -> int:
        """Throw away what is here already, and say how many bytes it was."""


class Scene(Protocol):
    """What a conversation needs of its connection."""

    @property
    def log(self) -> Channel:
        """Where to write."""

    def peer_of(self, side: Side) -> Peer:
        """The side as it is to be talked to at the moment."""

    def name(self, side: Side) -> str:
        """How the log calls the side."""

    async def connect(self, target: HostPort | None) -> Any:
        """As the step `Connect`. Raises BackendError."""


async def converse(script: Script, scene: Scene, timeout: float) -> None:
    """Run a script to its end, and wait `timeout` seconds at most for what peers say between two connects.

    Raises NegotiationError, or the BackendError of a failed connect.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    result: Any = None
    try:
        step = next(script)
        while True:
            if isinstance(step, Connect):
                try:
                    result = await scene.connect(step.target)
                except BackendError as error:
                    step = script.throw(error)
                    continue
                finally:
                    deadline = clock() + timeout
            elif isinstance(step, Note):
                scene.log.info(step.text)
            else:
                result = await _exchange(step, scene, deadline, timeout)
            step = script.send(result)
    except StopIteration:
        return
    finally:
        script.close()


async def _exchange(
    step: Line | Exactly | Peek | Send | Discard, scene: Scene, deadline: float, timeout: float
) -> Any:
    peer, name = scene.peer_of(step.side), scene.name(step.side)
    try:
        async with asyncio.timeout_at(deadline):
            match step:
                case Line(_, limit):
                    return await peer.line(limit)
                case Exactly(_, size):
                    return await peer.exactly(size)
                case Peek():
                    return await peer.peek()
                case Send(_, data):
                    return await peer.send(data)
                case Discard():
                    if count := peer.discard():
                        scene.log.warning(
                            f"{count} byte(s) that {name} sent in clear, ahead of its turn, are discarded"
                        )
    except TimeoutError:
        raise NegotiationError(f"{name}: TIMEOUTbusy ({timeout:g} s) exceeded") from None
    except OSError as error:
        raise NegotiationError(f"{name}: {os_reason(error)} ({error.errno})") from None
    except NegotiationError as error:
        raise NegotiationError(f"{name}: {error}") from None


class _Peer:
    """What both kinds have in common: a piece is looked at, and as much of it taken as is wanted."""

    def __init__(self, readiness: Readiness, stream: Stream) -> None:
        self._readiness = readiness
        self._stream = stream

    async def line(self, limit: int) -> bytes:
        taken = bytearray()
        while not taken.endswith(b"\n"):
            if len(taken) >= limit:
                raise NegotiationError(f"sent a line of more than {limit} bytes")
            taken += await self._take(limit - len(taken), to_line_end=True)
        return bytes(taken[:-2] if taken.endswith(b"\r\n") else taken[:-1])

    async def exactly(self, count: int) -> bytes:
        taken = bytearray()
        while len(taken) < count:
            taken += await self._take(count - len(taken), to_line_end=False)
        return bytes(taken)

    async def _take(self, most: int, *, to_line_end: bool) -> bytes:
        """One byte at least, `most` at most; nothing behind the end of a line where that is asked for."""
        raise NotImplementedError

    async def _transmit(self, data: memoryview) -> None:
        while data:
            try:
                sent = self._stream.send(data)
            except (BlockingIOError, InterruptedError):
                await self._ready(reading=False)
            else:
                data = data[sent:]

    async def _ready(self, *, reading: bool) -> None:
        """Wait until the stream can be read, or written."""
        ready: asyncio.Future[None] = self._readiness.loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        def readable() -> bool:
            wake()
            return False  # whoever waits takes it

        interest = Interest(self._readiness, self._stream.fileno(), readable, wake, on_failure=wake)
        interest.set(reading, not reading)
        try:
            await ready
        finally:
            interest.close()


class ClearPeer(_Peer):
    """A side that is spoken to without TLS."""

    async def _take(self, most: int, *, to_line_end: bool) -> bytes:
        while True:
            try:
                return self._take_now(most, to_line_end=to_line_end)
            except (BlockingIOError, InterruptedError):
                await self._ready(reading=True)

    async def peek(self) -> bytes:
        if not isinstance(self._stream, socket.socket):
            return b""
        while True:
            try:
                seen = self._stream.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._ready(reading=True)
                continue
            if not seen:
                raise NegotiationError("closed the connection")
            return seen

    async def send(self, data: bytes) -> None:
        await self._transmit(memoryview(data))

    def discard(self) -> int:
        discarded = 0
        buffer = bytearray(65536)
        while discarded < DISCARD_LIMIT:
            try:
                count = self._stream.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return discarded
            if not count:
                raise NegotiationError("closed the connection")
            discarded += count
        raise NegotiationError(f"sent more than {DISCARD_LIMIT} bytes ahead of its turn")

    def _take_now(self, most: int, *, to_line_end: bool) -> bytes:
        if to_line_end:
            seen = (
                self._stream.recv(most, socket.MSG_PEEK) if isinstance(self._stream, socket.socket) else b""
            )
            most = seen.find(b"\n") + 1 or len(seen) or 1
        buffer = bytearray(most)
        count = self._stream.recv_into(buffer)
        if not count:
            raise NegotiationError("closed the connection")
        return bytes(buffer[:count])

    def _line_end(self, most: int) -> int:
        """How many of the bytes that wait belong to the line; 1 where none wait, or none can be seen."""
        stream = self._stream
        seen = stream.recv(most, socket.MSG_PEEK) if isinstance(stream, socket.socket) else b""
        return seen.find(b"\n") + 1 or len(seen) or 1


class TlsPeer(_Peer):
    """A side that is spoken to inside TLS, after the handshake."""

    def __init__(self, readiness: Readiness, stream: Stream, engine: Engine) -> None:
        super().__init__(readiness, stream)
        self._engine = engine

    async def _take(self, most: int, *, to_line_end: bool) -> bytes:
        engine = self._engine
        while True:
            taken = engine.read(1 if to_line_end else min(most, RECORD))
            if taken:
                return taken
            await self._flush(engine.output())
            if engine.status is Status.FAILED:
                raise NegotiationError(str(engine.failure))
            if engine.status is Status.CLOSED:
                raise NegotiationError("closed the connection")
            await self._receive()

    async def _receive(self) -> None:
        while True:
            try:
                count = self._stream.recv_into(self._engine.scratch.received)
            except (BlockingIOError, InterruptedError):
                await self._ready(reading=True)
                continue
            if not count:
                raise NegotiationError("closed the connection without close_notify")
            self._engine.feed(count)
            return

    async def peek(self) -> bytes:
        return b""

    async def send(self, data: bytes) -> None:
        engine = self._engine
        for start in range(0, len(data), RECORD):
            piece = data[start : start + RECORD]
            engine.scratch.received[: len(piece)] = piece
            await self._flush(engine.encrypt(len(piece)))
            if engine.blocked is not None:
                raise NegotiationError("renegotiates in the middle of a negotiation")
            if engine.status is Status.FAILED:
                raise NegotiationError(str(engine.failure))

    def discard(self) -> int:
        return 0  # inside TLS nobody else can have put anything there

    async def _flush(self, count: int) -> None:
        if count:
            await self._transmit(memoryview(bytes(self._engine.scratch.transformed[:count])))
