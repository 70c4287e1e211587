"""One TLS connection as an asyncio transport: what a program writes goes out encrypted, and back.

It begins where the handshake has ended, with the socket and the engine of that connection, and does for a
protocol of asyncio's (as a rule, that of a StreamReader and a StreamWriter) what the relay does for a socket
on the plain side. The ends are kept apart as there: `write_eof` sends a close_notify and goes on reading, and
the peer's end is the protocol's `eof_received`, whether or not a close_notify came before; where none came,
`on_truncated` is called first.

Invariants:
- The scratch buffers hold nothing between two calls: what is in them is sent or copied before the protocol is
  called, for it may write.
- Plaintext waits in `_plaintext` while ciphertext waits in `_ciphertext`, or while OpenSSL waits for the
  peer: the order of what was written is the order in which it is encrypted.
- The protocol hears `connection_lost` once, after the socket is closed, and nothing after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from culvert.errors import PeerError
from culvert.readiness import Interest, Readiness
from culvert.tls.engine import CHUNK, Engine, Status
from culvert.tls.failure import TlsError

HIGH_WATER = 64 * 1024
"""Bytes not sent yet at which the protocol is asked to pause, as asyncio's own transports have it."""

LINGER = 2.0
"""Seconds for which a closed connection waits for its peer's end: a close with bytes unread would send an
RST, which can overtake the last bytes that were sent."""

LINGER_LIMIT = 1024 * 1024
"""Most bytes that such a peer may still send."""


class TruncatedError(PeerError):
    """The peer ended its stream without a close_notify: what it meant to say may have been cut short.

    `partial` is what was read of what was asked for.
    """

    def __init__(self, partial: bytes = b"") -> None:
        super().__init__("the peer ended the connection without close_notify: what it said may be truncated")
        self.partial = partial


@dataclass(frozen=True, slots=True)
class Secure:
    """A socket with TLS on it, and what is needed to go on: `release` is called when the socket is closed."""

    readiness: Readiness
    engine: Engine
    sock: socket.socket
    release: Callable[[], None]
    close_timeout: float
    """Seconds for which `close` waits for a peer who takes nothing."""


class TlsTransport(asyncio.Transport):
    """The transport. `begin` it with its protocol."""

    def __init__(self, secure: Secure, extra: Mapping[str, Any], on_truncated: Callable[[], None]) -> None:
        super().__init__(extra)
        self._secure = secure
        self._loop = secure.readiness.loop
        self._engine, self._sock = secure.engine, secure.sock
        self._scratch = secure.engine.scratch
        self._on_truncated = on_truncated
        self._protocol: asyncio.BaseProtocol
        self._receiver: asyncio.Protocol | None = None
        self._interest = Interest(
            secure.readiness, self._sock.fileno(), self._readable, self._writable, on_failure=self._hung_up
        )
        self._plaintext = bytearray()
        self._ciphertext = bytearray()
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._asked_to_pause = False
        self._paused = False
        self._ended = False
        self._eof_written = self._notified = False
        self._send_error: OSError | None = None
        self._closing = self._lingering = self._lost = False
        self._drained = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand over to the protocol: it hears `connection_made`, and then what the peer says."""
        self.set_protocol(protocol)
        protocol.connection_made(self)
        count = self._engine.drain()  # what came together with the handshake's end
        self._received(count)
        self._engine.trim()
        self._steer()

    # --- what a protocol, or a stream, asks for ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._receiver = protocol if isinstance(protocol, asyncio.Protocol) else None

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing or self._lost

    def is_reading(self) -> bool:
        return not (self._paused or self._ended or self.is_closing())

    def pause_reading(self) -> None:
        self._paused = True
        self._steer()

    def resume_reading(self) -> None:
        self._paused = False
        self._steer()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must not be below low ({low!r}), nor low below 0")
        self._high, self._low = high, low
        self._regulate()

    def get_write_buffer_size(self) -> int:
        return len(self._plaintext) + len(self._ciphertext)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, a bytearray or a memoryview, not {type(data).__name__}")
        if self._eof_written:
            raise RuntimeError("cannot write after write_eof")
        if self.is_closing() or self._send_error is not None:
            return  # as asyncio has it: who reads, or drains, hears of it
        self._plaintext += data
        self._push()
        self._steer()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._eof_written:
            self._eof_written = True
            self._push()
            self._steer()

    def close(self) -> None:
        """Send what waits and a close_notify, and close once the peer has ended its side too.

        A peer who takes nothing is left after TIMEOUTclose, one who does not end after LINGER seconds.
        """
        if self.is_closing():
            return
        self._closing = True
        if self._send_error is not None:
            self._fail(self._send_error)
            return
        self._eof_written = True
        late = TimeoutError("the peer takes nothing: TIMEOUTclose exceeded")
        self._timer = self._loop.call_later(self._secure.close_timeout, self._lose, late)
        self._push()
        self._steer()

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        self._lose(None)

    # --- from the peer ---

    def _readable(self) -> bool:
        """Take one read; whether there was anything to take, the end included."""
        try:
            count = self._sock.recv_into(self._scratch.received)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._fail(self._send_error or error)
            return True
        if self._lingering:
            self._drained += count
            if not count or self._drained > LINGER_LIMIT:
                self._lose(None)
        elif not count:
            self._stream_ended()
        else:
            self._received(self._engine.decrypt(count))
            self._steer()
        return True

    def _received(self, count: int) -> None:
        """Hand on `count` bytes of plaintext, then see to whatever else reading made of the connection."""
        engine = self._engine
        data = bytes(self._scratch.transformed[:count])
        if engine.blocked is not None:
            engine.resume()
        self._take_output()
        self._push()
        if data and not self.is_closing() and self._receiver is not None:
            self._receiver.data_received(data)
        if self._lost or engine.status is Status.OPEN or self._ended:
            return
        if engine.status is Status.FAILED:
            self._broken()
        else:
            self._peer_ended()

    def _stream_ended(self) -> None:
        if self._send_error is not None:
            self._fail(self._send_error)
            return
        if not self._closing:
            self._on_truncated()
        self._peer_ended()
        self._steer()

    def _peer_ended(self) -> None:
        """The peer has said all: the other direction goes on."""
        self._ended = True
        if self._closing:
            return
        keeps_open = self._receiver.eof_received() if self._receiver is not None else False
        if not keeps_open:
            self.close()

    def _hung_up(self) -> None:
        """An RST, while nothing was read: by back-pressure, or after the peer's end."""
        self._fail(self._send_error or ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    # --- to the peer ---

    def _push(self) -> None:
        """Encrypt and send as much of what waits as the peer takes."""
        engine, plaintext = self._engine, self._plaintext
        while plaintext and not self._ciphertext and engine.blocked is None and self._sends:
            count = min(len(plaintext), CHUNK)
            with memoryview(plaintext) as view:
                self._scratch.received[:count] = view[:count]
            del plaintext[:count]
            self._send(engine.encrypt(count))
            if engine.status is Status.FAILED:
                self._broken()
        if self._eof_written and not (self._notified or plaintext or engine.blocked) and self._sends:
            self._notified = True
            engine.close()
            self._take_output()
        if self._notified and self._closing and not self._ciphertext:
            self._linger()
        self._regulate()

    @property
    def _sends(self) -> bool:
        return not self._lost and self._send_error is None and self._engine.status is not Status.FAILED

    def _take_output(self) -> None:
        if count := self._engine.output():
            self._send(count)

    def _send(self, count: int) -> None:
        """Send `count` bytes of ciphertext, behind what still waits."""
        sent = 0
        if self._lost or self._send_error is not None:
            return
        if not self._ciphertext:
            try:
                sent = self._sock.send(self._scratch.transformed[:count])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._broke(error)
                return
        self._ciphertext += self._scratch.transformed[sent:count]

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._ciphertext)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._broke(error)
            return
        del self._ciphertext[:sent]
        if not self._ciphertext:
            self._push()
        self._steer()

    def _broke(self, error: OSError) -> None:
        """The peer takes nothing more. What it said before, an alert perhaps, is still read."""
        self._send_error = error
        self._plaintext.clear()
        self._ciphertext.clear()
        if self._ended or self._closing:
            self._fail(error)

    def _regulate(self) -> None:
        """Ask the protocol to pause or to go on, as the water marks say."""
        size = self.get_write_buffer_size()
        if size > self._high and not self._asked_to_pause:
            self._asked_to_pause = True
            self._protocol.pause_writing()
        elif size <= self._low and self._asked_to_pause:
            self._asked_to_pause = False
            self._protocol.resume_writing()

    def _steer(self) -> None:
        """Bring the interest in readiness in line with the state. To be called after it changed."""
        if self._lost:
            return
        # A TLS 1.2 peer that renegotiates is read in spite of a pause: what is written waits for it.
        wanted = not self._paused or self._engine.blocked is not None or self._closing
        self._interest.set(wanted and (self._lingering or not self._ended), bool(self._ciphertext))

    # --- the end ---

    def _linger(self) -> None:
        """All is said: wait for the peer's end, unless it has come."""
        if self._lingering or self._lost:
            return
        if self._ended:
            self._lose(None)
            return
        self._lingering = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LINGER, self._lose, None)

    def _broken(self) -> None:
        """OpenSSL cannot go on; what it has to say of it was sent."""
        failure = self._engine.failure
        self._lose(TlsError(failure.reason, failure.errors) if failure is not None else None)

    def _fail(self, error: OSError) -> None:
        """The socket is of no more use. Who has read the peer's end, or has said all, loses nothing by it."""
        self._lose(None if self._ended or (self._closing and self._notified) else error)

    def _lose(self, error: Exception | None) -> None:
        """Close the socket and tell the protocol why. What was read before has been handed on."""
        if self._lost:
            return
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._plaintext.clear()
        self._ciphertext.clear()
        self._interest.close()
        self._secure.readiness.forget(self._sock.fileno())
        self._sock.close()
        self._secure.release()
        self._loop.call_soon(self._protocol.connection_lost, error)


class TlsReader(asyncio.StreamReader):
    """A StreamReader that does not take a truncated stream for one that has ended.

    What came before the cut is read first, as at an end in good order. Where the cut would show, be it as
    nothing more to read, as an IncompleteReadError or as the end of all that `read` collects, TruncatedError
    is raised.
    """

    _truncated = False

    def truncate(self) -> None:
        """The end that comes next is no end in good order."""
        self._truncated = True

    async def read(self, n: int = -1) -> bytes:
        data = bytearray(await super().read(n if n >= 0 else CHUNK))
        while n < 0 and (more := await super().read(CHUNK)):
            data += more
        if self._truncated and n and self.at_eof() and (n < 0 or not data):
            raise TruncatedError(bytes(data))
        return bytes(data)

    async def readexactly(self, n: int) -> bytes:
        try:
            return await super().readexactly(n)
        except asyncio.IncompleteReadError as error:
            if self._truncated:
                raise TruncatedError(error.partial) from None
            raise

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        try:
            return await super().readuntil(separator)
        except asyncio.IncompleteReadError as error:
            if self._truncated:
                raise TruncatedError(error.partial) from None
            raise


def open_streams(
    secure: Secure, extra: Mapping[str, Any], limit: int, first: bytes
) -> tuple[TlsReader, asyncio.StreamWriter]:
    """A reader and a writer; `first` is read before anything that comes from the peer."""
    loop = secure.readiness.loop
    reader = TlsReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = TlsTransport(secure, extra, reader.truncate)
    reader.feed_data(first)
    transport.begin(protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
