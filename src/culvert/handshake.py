"""Drives one TLS handshake over a stream: the engine's flights out, the peer's flights in."""

from __future__ import annotations

import asyncio

from culvert.presence import Presence
from culvert.readiness import Interest, Readiness
from culvert.stream import Stream
from culvert.tls.engine import Engine, Scratch
from culvert.tls.failure import TlsError
from culvert.tls.hello import ClientHello

INPUT_LIMIT = 512 * 1024
"""Most bytes that a peer may send before its handshake is done: long certificate chains are below 100 kB."""


async def read_hello(
    readiness: Readiness, stream: Stream, scratch: Scratch, timeout: float, presence: Presence
) -> ClientHello:
    """A client's first message, or what came in its place, within `timeout` seconds.

    Raises TimeoutError, or another OSError where the stream broke.
    """
    hello = ClientHello()
    done: asyncio.Future[None] = readiness.loop.create_future()

    def end(error: OSError | None = None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def readable() -> bool:
        try:
            count = stream.recv_into(scratch.received)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            presence.leave()
            end(error)
            return True
        if count:
            presence.hear()
        hello.feed(memoryview(scratch.received)[:count])
        if not count or hello.complete:
            interest.set(False, False)
            end()
        return True

    interest = Interest(readiness, stream.fileno(), readable, lambda: None, on_failure=lambda: None)
    timer = readiness.loop.call_later(timeout, end, TimeoutError())
    interest.set(True, False)
    try:
        await done
    finally:
        timer.cancel()
        interest.close()
    return hello


class Handshake:
    """One handshake. `run` it once; the stream is left open whatever comes of it.

    The session tickets of a TLS 1.3 server stay in the engine: whoever goes on with it sends its `output`.

    It stands on readiness callbacks like the relay, not on the loop's socket coroutines: they would need
    a buffer and two futures for each flight.
    """

    __slots__ = (
        "_done",
        "_engine",
        "_finished",
        "_interest",
        "_loop",
        "_presence",
        "_received",
        "_send_error",
        "_stream",
        "_taken",
        "_transformed",
        "_unsent",
    )

    def __init__(
        self, readiness: Readiness, engine: Engine, stream: Stream, presence: Presence | None = None
    ) -> None:
        """`presence` is that of the client where this is the server's end."""
        self._loop = readiness.loop
        self._engine = engine
        self._stream = stream
        self._presence = presence
        self._interest = Interest(
            readiness, stream.fileno(), self._readable, self._writable, on_failure=self._writable
        )
        self._received, self._transformed = engine.scratch.received, engine.scratch.transformed
        self._unsent: memoryview | None = None
        self._finished = False
        self._send_error: OSError | None = None
        self._taken = 0
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def run(self, timeout: float) -> None:
        """Finish the handshake within `timeout` seconds.

        Raises TlsError, after what OpenSSL has to say of it was sent to the peer, TimeoutError, or another
        OSError where the stream broke.
        """
        timer = self._loop.call_later(timeout, self._expire)
        try:
            self._step()
            self._steer()
            await self._done
        except BaseException:
            self._interest.close()
            raise
        else:
            self._interest.hand_over()
        finally:
            timer.cancel()
            del self._done  # its exception's traceback leads back here

    def _expire(self) -> None:
        self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if not self._done.done():  # a task that was cancelled has cancelled it
            self._done.set_exception(error)
        self._steer()

    def _succeed(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _readable(self) -> bool:
        if self._finished:
            # What comes now is data: the relay's to read, one bounded chunk at a time.
            self._interest.lapse()
            return False
        try:
            count = self._stream.recv_into(self._received)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if self._presence is not None:
                self._presence.leave()
            self._fail(error)
            return True
        self._taken += count
        if self._presence is not None:
            if count:
                self._presence.hear()
            else:
                self._presence.leave()
        if not count:
            self._fail(self._send_error or self._engine.end_of_stream())
        elif self._taken > INPUT_LIMIT:
            self._fail(TlsError(f"more than {INPUT_LIMIT} bytes before the handshake was done"))
        else:
            self._engine.feed(count)
            self._step()
        self._steer()
        return True

    def _steer(self) -> None:
        going_on = not self._done.done()
        self._interest.set(going_on or self._finished, going_on and self._unsent is not None)

    def _step(self) -> None:
        try:
            self._finished = self._engine.handshake()
        except TlsError as error:
            self._send(self._engine.output())
            self._fail(error)
            return
        if not (self._finished and self._engine.output_can_wait):
            self._send(self._engine.output())
        if self._finished and self._unsent is None:
            self._succeed()

    def _send(self, count: int) -> None:
        if not count or self._send_error is not None:
            return
        if self._unsent is not None:
            self._unsent = memoryview(bytes(self._unsent) + bytes(self._transformed[:count]))
            return
        try:
            sent = self._stream.send(self._transformed[:count])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._send_error = error  # the peer may have said why before it went: reading goes on
            return
        if sent < count:
            self._unsent = memoryview(bytes(self._transformed[sent:count]))

    def _writable(self) -> None:
        waiting = self._unsent
        if waiting is None or self._done.done():
            return
        try:
            sent = self._stream.send(waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._send_error = error
            sent = len(waiting)
        self._unsent = waiting[sent:] if sent < len(waiting) else None
        if self._unsent is None:
            self._step()
        self._steer()
