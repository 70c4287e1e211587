"""The hot path: moves the bytes of one connection between its TLS side and its plain side.

Model: two directions, each with at most one chunk that its destination did not take yet. Two callbacks do
the work: a readable TLS stream is read once, decrypted and sent on; a readable plain stream is read once,
encrypted and sent on. A short send is the rare case: only then is a copy made and a writer registered, and
the source is not read again until the copy is gone. That is the back-pressure.

Invariants:
- The scratch buffers belong to the whole worker: what is in them is sent or copied before a callback
  returns.
- The loop's interest in readiness changes only when the state does (`_steer`): the steady state makes no
  system call but recv and send.
- A direction ends once (`_tls_ended`, `_plain_ended`). What was read before is delivered first, then the end
  is passed on (`_plain_shut`, `_tls_shut`), by shutdown or by close_notify. All four: the relay is over.

Pitfalls:
- A failed send breaks only the direction that it served. What the other side said before it went (an
  alert, an answer) may still wait to be read, so reading goes on, and its end decides the outcome.
- In TLS, reading can make output (an alert, a key update), and writing can need input (renegotiation).
- TIMEOUTclose runs from the last byte that moved, not from the first close: a long download may follow.
- A TLS 1.3 server's session tickets wait for data to go along with, or for a quiet moment: a send of their
  own would cost a tenth of a short connection.
- The engine's buffers grow with a burst; a connection that falls quiet gives the memory back.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import Protocol

from culvert.errors import os_reason
from culvert.readiness import Interest, Readiness
from culvert.stream import End, Stream
from culvert.tls.engine import CHUNK, Engine, Status

CONTROL_LIMIT = 2 * CHUNK
"""Most ciphertext that may wait for a peer who makes us answer (key updates) but does not read."""

TICKETS_WAIT = 2
"""Reads for which tickets wait, a request in two parts: answers to key updates pile up behind them."""

BURST = 16 * 1024
"""A read of more than this lets the engine's buffers grow beyond what an idle connection should hold."""

TRIM_AFTER = 1.0
"""Seconds of quiet after which a connection gives back what a burst made its buffers grow by."""

TIMER_SLACK = 0.002
"""Seconds by which a loop's timer may fire early: uvloop counts in milliseconds."""


class Observer(Protocol):
    """Who is told of what happens on the way. Nothing is told once `Relay.run` has returned."""

    def tls_answered(self) -> None:
        """The first bytes from the TLS side were taken: a TLS 1.3 server has sent its session by then."""

    def tls_truncated(self) -> None:
        """The TLS side ended without a close_notify."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: without any traffic at all; and without traffic once one direction's end was passed on."""

    idle: float
    close: float


class Relay:
    """Carries one connection until both directions are over. `run` it once; the caller closes the streams.

    `reason` says what went wrong where something did; `truncated` that the TLS side ended without a
    close_notify; the two counters are bytes of plaintext that were handed on.
    """

    __slots__ = (
        "_active",
        "_burst",
        "_carried",
        "_done",
        "_engine",
        "_limits",
        "_loop",
        "_observer",
        "_plain",
        "_plain_ended",
        "_plain_error",
        "_plain_exiting",
        "_plain_interest",
        "_plain_recv",
        "_plain_send",
        "_plain_shut",
        "_received",
        "_tickets_wait",
        "_timer",
        "_timer_due",
        "_tls_answered",
        "_tls_ended",
        "_tls_error",
        "_tls_interest",
        "_tls_recv",
        "_tls_send",
        "_tls_shut",
        "_to_plain",
        "_to_tls",
        "_transformed",
        "reason",
        "sent_to_plain",
        "sent_to_tls",
        "truncated",
    )

    def __init__(
        self,
        readiness: Readiness,
        engine: Engine,
        tls: Stream,
        plain: Stream,
        limits: Limits,
        *,
        carried: memoryview | None = None,
    ) -> None:
        """`carried` is two numbers that grow with the bytes sent: to TLS, and to the plain side."""
        self._loop = readiness.loop
        self._carried = memoryview(bytearray(16)).cast("Q") if carried is None else carried
        scratch = engine.scratch
        self._received, self._transformed = scratch.received, scratch.transformed
        self._engine = engine
        self._limits = limits
        self._plain = plain
        self._tls_recv, self._tls_send = tls.recv_into, tls.send
        self._plain_recv, self._plain_send = plain.recv_into, plain.send
        fds = tls.fileno(), plain.fileno()
        self._tls_interest = Interest(
            readiness, fds[0], self._tls_readable, self._tls_writable, on_failure=self._tls_failed
        )
        self._plain_interest = Interest(
            readiness, fds[1], self._plain_readable, self._plain_writable, on_failure=self._plain_failed
        )
        self._to_tls: memoryview | None = None
        self._to_plain: memoryview | None = None
        self._tls_ended = self._plain_ended = False
        self._tls_shut = self._plain_shut = False
        self._tls_error: OSError | None = None
        self._plain_error: OSError | None = None
        self._plain_exiting = False
        self._tickets_wait = TICKETS_WAIT if engine.output_can_wait else 0
        self._burst = True  # the handshake was one
        self._done: asyncio.Future[End] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._observer: Observer | None = None
        self._tls_answered = False
        self._active = self._loop.time()
        self.reason: str | None = None
        self.truncated = False
        self.sent_to_tls = 0
        self.sent_to_plain = 0

    async def run(self, observer: Observer) -> End:
        """Carry bytes until the end, and tell `observer` what is noticed on the way."""
        self._observer = observer
        self._active = self._loop.time()
        try:
            plaintext = self._engine.drain()  # what came together with the handshake's end
            if plaintext or self._engine.status is not Status.OPEN:
                self._note_answer()
                self._deliver(plaintext)
            self._steer()
            return await self._done
        finally:
            self._detach()

    def plain_exits(self) -> None:
        """The program on the plain side has exited. What it left in the background may have more to say:
        that is carried too, until it is silent for TIMEOUTclose.
        """
        self._plain_exiting = True
        self._set_timer()

    def wind_up(self) -> None:
        """Read nothing more: what was read is handed on, both sides are told the end, and it is over."""
        self._plain_ended = self._tls_ended = True
        self._steer()

    def abort(self, end: End, reason: str) -> None:
        """End now, for a reason that neither side gave."""
        self.reason = reason
        self._finish(end)

    # --- from the TLS side to the plain side ---

    def _tls_readable(self) -> bool:
        """Carry one read; whether the TLS side had anything to say, its end included."""
        try:
            count = self._tls_recv(self._received)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lost("TLS", error)
            return True
        if not count:
            self._tls_stream_ended()
            return True
        self._active = self._loop.time()
        if count > BURST:
            self._note_burst()
        plaintext = self._engine.decrypt(count)
        if not self._tls_answered:
            self._note_answer()
        self._deliver(plaintext)
        return True

    def _note_answer(self) -> None:
        self._tls_answered = True
        if self._observer is not None:
            self._observer.tls_answered()

    def _deliver(self, count: int) -> None:
        """Hand on `count` bytes of plaintext, then see to whatever else reading made of the TLS side."""
        engine = self._engine
        if count and not self._plain_shut:
            try:
                sent = self._plain_send(self._transformed[:count])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._plain_broke(error)
                sent = 0
            self.sent_to_plain += sent
            self._carried[1] += sent
            if sent < count and not self._plain_shut:
                self._to_plain = memoryview(bytes(self._transformed[sent:count]))
                self._steer()
        if engine.blocked is not None:
            engine.resume()
            self._steer()
        if self._tickets_wait and engine.status is Status.OPEN:
            self._tickets_wait -= 1
        elif (pending := engine.output()) and engine.may_answer(self._active):
            self._send_to_tls(pending)
        if engine.status:
            self._tls_finished()

    def _tls_finished(self) -> None:
        """The engine has seen the peer's close_notify, or cannot go on."""
        if self._engine.status is Status.FAILED:
            self.reason = str(self._engine.failure)
            self._finish(End.TLS_FAILED)
        elif self._tls_error is not None:
            self._lost("TLS", self._tls_error)
        else:
            self._tls_ended = True
            self._steer()

    def _tls_stream_ended(self) -> None:
        if self._tls_error is not None:
            self._lost("TLS", self._tls_error)
            return
        self.truncated = True
        if self._observer is not None:
            self._observer.tls_truncated()
        self._tls_ended = True
        self._steer()

    def _plain_writable(self) -> None:
        waiting = self._to_plain
        if waiting is not None:
            try:
                sent = self._plain_send(waiting)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._plain_broke(error)
                return
            self._active = self._loop.time()
            self.sent_to_plain += sent
            self._carried[1] += sent
            self._to_plain = waiting[sent:] if sent < len(waiting) else None
        self._steer()

    def _plain_broke(self, error: OSError) -> None:
        """The plain side takes nothing more. What it said before is still read."""
        if self._plain_ended:
            self._lost("plain", error)
            return
        self._plain_error = error
        self._to_plain = None
        self._tls_ended = self._plain_shut = True
        self._steer()

    def _tls_failed(self) -> None:
        self._lost("TLS", ConnectionResetError(errno.ECONNRESET, "reset"))

    def _plain_failed(self) -> None:
        if isinstance(self._plain, socket.socket):  # a program's exit is an end, whatever it left unread
            self._lost("plain", ConnectionResetError(errno.ECONNRESET, "reset"))

    # --- from the plain side to the TLS side ---

    def _plain_readable(self) -> bool:
        """Carry one read; whether the plain side had anything to say, its end included."""
        try:
            count = self._plain_recv(self._received)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lost("plain", error)
            return True
        if not count:
            self._plain_stream_ended()
            return True
        self._active = self._loop.time()
        if count > BURST:
            self._note_burst()
        engine = self._engine
        pending = engine.encrypt(count)
        self._tickets_wait = 0
        self.sent_to_tls += count
        self._carried[0] += count
        self._send_to_tls(pending)
        if engine.blocked is not None:
            self._steer()
        elif engine.status is Status.FAILED:
            self._tls_finished()
        return True

    def _send_to_tls(self, count: int) -> None:
        """Send `count` bytes of ciphertext, behind what still waits."""
        if self._to_tls is not None:
            self._queue_control(count)
            return
        try:
            sent = self._tls_send(self._transformed[:count])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._tls_broke(error)
            return
        if sent < count:
            self._to_tls = memoryview(bytes(self._transformed[sent:count]))
            self._steer()

    def _queue_control(self, count: int) -> None:
        waiting = bytes(self._to_tls or b"") + bytes(self._transformed[:count])
        if len(waiting) > CONTROL_LIMIT:
            self.abort(End.RESET, "The TLS peer demands answers that it does not read")
        self._to_tls = memoryview(waiting)

    def _tls_writable(self) -> None:
        waiting = self._to_tls
        if waiting is not None:
            try:
                sent = self._tls_send(waiting)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._tls_broke(error)
                return
            self._active = self._loop.time()
            self._to_tls = waiting[sent:] if sent < len(waiting) else None
        self._steer()

    def _tls_broke(self, error: OSError) -> None:
        """The TLS side takes nothing more. What it said before, an alert perhaps, is still read."""
        if self._tls_ended:
            self._lost("TLS", error)
            return
        self._tls_error = error
        self._to_tls = None
        self._plain_ended = self._tls_shut = True
        self._steer()

    def _plain_stream_ended(self) -> None:
        if self._plain_error is not None:
            self._lost("plain", self._plain_error)
            return
        self._plain_ended = True
        self._steer()

    # --- state ---

    def _steer(self) -> None:
        """Bring ends, interest and deadline in line with the state. To be called after it changed."""
        if self._done.done():  # over, or cancelled from outside
            self._detach()
            return
        blocked = self._engine.blocked is not None
        if self._tls_ended and self._to_plain is None and not self._plain_shut:
            self._shut_plain()
        if self._plain_ended and self._to_tls is None and not (self._tls_shut or blocked):
            self._shut_tls()
        ended = self._tls_ended and self._plain_ended
        if ended and self._tls_shut and self._plain_shut and self._to_tls is None:
            self._finish(End.CLOSED)
            return
        self._tls_interest.set(self._to_plain is None and not self._tls_ended, self._to_tls is not None)
        self._plain_interest.set(
            self._to_tls is None and not (self._plain_ended or blocked), self._to_plain is not None
        )
        self._set_timer()

    def _shut_plain(self) -> None:
        self._plain_shut = True
        try:
            self._plain.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._plain_broke(error)

    def _shut_tls(self) -> None:
        self._tls_shut = True
        self._engine.close()
        if pending := self._engine.output():
            self._send_to_tls(pending)

    # --- time ---

    def _note_burst(self) -> None:
        if not self._burst:
            self._burst = True
            self._set_timer()

    def _half_closed(self) -> bool:
        return (self._plain_ended and self._tls_shut) or (self._tls_ended and self._plain_shut)

    def _limit(self) -> float:
        ending = self._half_closed() or (self._plain_exiting and not self._plain_ended)
        return self._limits.close if ending else self._limits.idle

    def _set_timer(self) -> None:
        """Have `_check_time` run by the next deadline; a timer that comes earlier is left to rearm itself."""
        if self._done.done():
            return
        limit = self._limit()
        deadline = self._active + (min(limit, TRIM_AFTER) if self._burst else limit)
        if self._timer is not None:
            if self._timer_due <= deadline:
                return
            self._timer.cancel()
        self._timer_due = deadline
        self._timer = self._loop.call_at(deadline, self._check_time)

    def _check_time(self) -> None:
        self._timer = None
        quiet = self._loop.time() - self._active + TIMER_SLACK
        if quiet >= self._limit():
            self._out_of_time()
            return
        if self._burst and quiet >= TRIM_AFTER:
            self._burst = False
            self._rest()
        self._set_timer()

    def _out_of_time(self) -> None:
        if self._half_closed():
            self._finish(End.UNANSWERED)
        elif self._plain_exiting:
            self._active = self._loop.time()  # TIMEOUTclose runs anew, for the other direction
            self._plain_stream_ended()
        else:
            self._finish(End.IDLE)

    def _rest(self) -> None:
        """After a burst: give back the engine's memory, once nothing is kept in it."""
        self._tickets_wait = 0
        if self._engine.blocked is None:
            if pending := self._engine.output():
                self._send_to_tls(pending)
            self._engine.trim()

    # --- the end ---

    def _lost(self, side: str, error: OSError) -> None:
        self.reason = f"{side} side: {os_reason(error)}"
        self._finish(End.RESET)

    def _finish(self, end: End) -> None:
        if not self._done.done():
            self._done.set_result(end)
            self._detach()

    def _detach(self) -> None:
        self._tls_interest.close()
        self._plain_interest.close()
        self._observer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
