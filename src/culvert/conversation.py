"""Runs a protocol's scripts over streams: what `negotiate` describes, done in clear or inside TLS.

Exactly what a script asks for is taken from a stream, so that nothing has to be handed on to the handshake
or to the relay: a socket is looked into before it is read, the TLS engine keeps what was not asked for, and
a stream that cannot be looked into (a terminal, a program's input) is read byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
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
    Step,
)
from culvert.presence import Presence
from culvert.readiness import Interest, Readiness
from culvert.stream import Stream
from culvert.tls.engine import RECORD, Engine, Status

DISCARD_LIMIT = 256 * 1024
"""Most bytes that a peer may send too early: somebody who sends more than fits into a socket's buffer
without waiting for an answer does not speak the protocol."""

FAREWELL = 2.0
"""Seconds for a script to tell the peers of a failure: one who does not read is left without a word."""


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


class Conversation:
    """Follows the scripts of one connection. What its peers say may take `timeout` seconds in all.

    The time that connecting takes is not counted: it has its own limit.
    """

    def __init__(self, scene: Scene, timeout: float) -> None:
        self._scene = scene
        self._left = timeout
        self._timeout = timeout
        self._clock = asyncio.get_running_loop().time

    async def follow(self, script: Script) -> Any:
        """Run a script to its end and return what it returns.

        A step that fails raises into the script, which may tell its peers within FAREWELL seconds. Raises
        NegotiationError, or the BackendError of a failed connect, whether or not the script lets it pass.
        """
        failure: NegotiationError | BackendError | None = None
        try:
            step = next(script)
            while True:
                try:
                    result = await self._perform(step)
                except (NegotiationError, BackendError) as error:
                    if failure is not None:
                        raise failure from None
                    failure = error
                    self._left = FAREWELL
                    step = script.throw(error)
                else:
                    step = script.send(result)
        except StopIteration as end:
            if failure is not None:
                raise failure from None
            return end.value
        finally:
            script.close()
            del failure  # its traceback leads back here

    async def _perform(self, step: Step) -> Any:
        match step:
            case Connect(target):
                return await self._scene.connect(target)
            case Note(text):
                return self._scene.log.info(text)
        began = self._clock()
        try:
            async with asyncio.timeout(max(self._left, 0)) as limit:
                return await self._exchange(step)
        except NegotiationError as error:
            raise NegotiationError(f"the {step.side.value} {error}") from None
        except OSError as error:  # TimeoutError is one, of a socket as well as of the clock
            raise NegotiationError(self._fault(step, error, expired=limit.expired())) from None
        finally:
            self._left -= self._clock() - began

    async def _exchange(self, step: Line | Exactly | Peek | Send | Discard) -> Any:
        peer = self._scene.peer_of(step.side)
        match step:
            case Line(_, limit):
                return await peer.line(limit)
            case Exactly(_, size):
                return await peer.exactly(size)
            case Peek():
                return await peer.peek()
            case Send(_, data):
                return await peer.send(data)
            case Discard(side):
                if count := peer.discard():
                    self._scene.log.warning(
                        f"{count} byte(s) that {self._scene.name(side)} sent in clear, ahead of its turn, "
                        "are discarded"
                    )
        return None

    def _fault(self, step: Line | Exactly | Peek | Send | Discard, error: OSError, *, expired: bool) -> str:
        if not expired:
            return f"the {step.side.value}: {os_reason(error)} ({error.errno})"
        does = "take what it is told" if isinstance(step, Send) else "say what is expected"
        return f"the {step.side.value} does not {does}: TIMEOUTbusy ({self._timeout:g} s) exceeded"


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

    async def _receive_into(self, buffer: bytearray) -> int:
        """As `recv_into`, of a stream that may have to be waited for; 0 at its end."""
        while True:
            try:
                return self._stream.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                await self._ready(reading=True)

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
    """A side that is spoken to without TLS; `presence` is told what comes of it."""

    def __init__(self, readiness: Readiness, stream: Stream, presence: Presence | None = None) -> None:
        super().__init__(readiness, stream)
        self._presence = presence

    async def _take(self, most: int, *, to_line_end: bool) -> bytes:
        buffer = bytearray(await self._line_part(most) if to_line_end else most)
        with self._attention():
            count = await self._receive_into(buffer)
        if not count:
            raise self._end()
        if self._presence is not None:
            self._presence.hear()
        return bytes(buffer[:count])

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        """Have it known where the stream breaks. A time-out is the clock's, and comes as a cancellation."""
        try:
            yield
        except OSError:
            if self._presence is not None:
                self._presence.leave()
            raise

    def _end(self) -> NegotiationError:
        if self._presence is not None:
            self._presence.leave()
        return NegotiationError("closed the connection")

    async def _line_part(self, most: int) -> int:
        """How many of the bytes that wait belong to this line: one, where that cannot be looked at."""
        if not isinstance(self._stream, socket.socket):
            return 1
        seen = await self._look(self._stream, most)
        return seen.find(b"\n") + 1 or len(seen) or 1

    async def peek(self) -> bytes:
        if not isinstance(self._stream, socket.socket):
            return b""
        seen = await self._look(self._stream, 1)
        if not seen:
            raise self._end()
        if self._presence is not None:
            self._presence.hear()
        return seen

    async def _look(self, stream: socket.socket, most: int) -> bytes:
        """What waits, which stays; nothing at the end of the stream."""
        with self._attention():
            while True:
                try:
                    return stream.recv(most, socket.MSG_PEEK)
                except (BlockingIOError, InterruptedError):
                    await self._ready(reading=True)

    async def send(self, data: bytes) -> None:
        with self._attention():
            await self._transmit(memoryview(data))

    def discard(self) -> int:
        discarded = 0
        buffer = bytearray(65536)
        while discarded <= DISCARD_LIMIT:
            try:
                count = self._stream.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return discarded
            if not count:
                raise self._end()
            discarded += count
        raise NegotiationError(f"sent more than {DISCARD_LIMIT} bytes ahead of its turn")


class TlsPeer(_Peer):
    """A side that is spoken to inside TLS, after the handshake."""

    def __init__(self, readiness: Readiness, stream: Stream, engine: Engine) -> None:
        super().__init__(readiness, stream)
        self._engine = engine

    async def _take(self, most: int, *, to_line_end: bool) -> bytes:
        engine = self._engine
        while True:
            # The engine cannot be looked into: a line comes byte by byte, without a system call for each.
            taken = engine.read(1 if to_line_end else min(most, RECORD))
            if taken:
                return taken
            await self._flush(engine.output())
            if engine.status is Status.FAILED:
                raise NegotiationError(f"broke TLS: {engine.failure}")
            if engine.status is Status.CLOSED:
                raise NegotiationError("closed the connection")
            count = await self._receive_into(engine.scratch.received)
            if not count:
                raise NegotiationError("closed the connection without close_notify")
            engine.feed(count)

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
                raise NegotiationError(f"broke TLS: {engine.failure}")

    def discard(self) -> int:
        return 0  # inside TLS nobody else can have put anything there

    async def _flush(self, count: int) -> None:
        if count:
            await self._transmit(memoryview(bytes(self._engine.scratch.transformed[:count])))
