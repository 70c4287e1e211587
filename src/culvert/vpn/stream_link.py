"""A link over TLS: messages in a stream, between one TLS engine and one socket.

It stands in the place of the relay: a connection that has shaken hands runs it to its end. Packets are
encrypted where the interface has left them, several of them go to the socket in one call, and what was
decrypted is cut in place. A copy is made in two cases: a message that comes in two reads, and a send that the
socket does not take to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Protocol

from culvert.config.vpn import IpAddress
from culvert.errors import os_reason
from culvert.readiness import Interest, Readiness
from culvert.stream import End, Stream
from culvert.tls.engine import Engine, Status
from culvert.vpn import brief
from culvert.vpn.datagram.cutting import UDP_SEGMENTS, CutError, packets
from culvert.vpn.frames import BRIEF, BRIEF_PLACE, HEADER, Cutter, message
from culvert.vpn.tally import Drop
from culvert.vpn.transport import MESSAGE_LIMIT, VIRTIO, FrameError, Kind, Receiver

CONTROL_LIMIT = 256 * 1024
"""Most ciphertext that may wait for a peer who does not read: what makes more than that is no packet."""

FLUSH_AT = 96 * 1024
"""Bytes of packets that are encrypted before they are sent: what `scratch.transformed` holds, with room."""

FAREWELL = 2.0
"""Seconds for the peer's answer to our end."""

TRIM_AFTER = 1.0
"""Seconds of quiet after which the engine's buffers are given back."""

BURST = 16 * 1024

ALONE = 1500
"""Bytes that are likely to be one record with one small packet: it is handed on before a look for another."""

RECORDS_LIMIT = 1 << 23
"""Records under one key: a third of what AES-GCM is good for (RFC 8446, 5.5)."""


_PACKET, _OFFLOADED = int(Kind.PACKET), int(Kind.OFFLOADED)
_OPEN, _CLOSED, _FAILED = Status.OPEN, Status.CLOSED, Status.FAILED


class Observer(Protocol):
    """As the relay's."""

    def tls_answered(self) -> None: ...
    def tls_truncated(self) -> None: ...


class StreamLink:
    """The transport over one TLS stream. `attach` a receiver, then `run` it once. The caller closes it.

    The attributes are as the relay's: `sent_to_plain` are bytes of packets that came.
    """

    name = "TLS"
    offload = True

    def __init__(self, readiness: Readiness, engine: Engine, stream: Stream) -> None:
        self._loop = readiness.loop
        self._engine = engine
        self._stream = stream
        scratch = engine.scratch
        self._received, self._transformed = scratch.received, scratch.transformed
        self._recv, self._send = stream.recv_into, stream.send
        self._interest = Interest(
            readiness, stream.fileno(), self._readable, self._writable, on_failure=self._failed
        )
        self._cutter = Cutter()
        self._headers = brief.Headers()
        self._receiver: Receiver
        self._unsent: bytearray | None = None
        self._encrypted = 0
        self._closing = False
        self.busy = False
        self._done: asyncio.Future[End] = self._loop.create_future()
        self._farewell: asyncio.TimerHandle | None = None
        self._trimming: asyncio.TimerHandle | None = None
        self._observer: Observer | None = None
        self._answered = False
        self._cuts = False
        self._records = 0
        self.reason: str | None = None
        self.truncated = False
        self.sent_to_tls = 0
        self.sent_to_plain = 0

    def attach(self, receiver: Receiver) -> None:
        """To be called before `run`."""
        self._receiver = receiver

    async def run(self, observer: Observer) -> End:
        """Carry messages until the end."""
        self._observer = observer
        try:
            plaintext = self._engine.drain()  # what came together with the handshake's end
            self._take(plaintext)
            self._steer()
            return await self._done
        finally:
            self._detach()
            self._receiver.ended(self.reason or "")

    # --- of `Transport` ---

    @property
    def path_mtu(self) -> int | None:
        """What the kernel knows of the path of the TCP connection: packets of its own size are not cut."""
        if not isinstance(self._stream, socket.socket) or self._stream.family == socket.AF_UNIX:
            return None
        six = self._stream.family == socket.AF_INET6
        # IP_MTU of linux/in.h and IPV6_MTU of linux/in6.h, which the socket module does not name.
        level, option = (socket.IPPROTO_IPV6, 24) if six else (socket.IPPROTO_IP, 14)
        with contextlib.suppress(OSError):
            return self._stream.getsockopt(level, option)
        return None

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """The peer's in the VPN, once it was met."""
        return self._receiver.addresses

    @property
    def worn(self) -> bool:
        return self._records >= RECORDS_LIMIT

    @property
    def overdue(self) -> bool:
        return self._records >= 2 * RECORDS_LIMIT

    def send_message(self, kind: Kind, body: bytes) -> None:
        if self._over or self._closing or self._engine.blocked is not None:
            return
        data = message(kind, body[:MESSAGE_LIMIT])
        self._received[: len(data)] = data
        self._engine.write(0, len(data))
        self._records += 1
        self._push()
        self._steer()

    def send_packet(self, start: int, count: int, offloaded: bool) -> None:
        if offloaded and self._cuts and self._received[start - VIRTIO + 1] == UDP_SEGMENTS:
            self._send_datagrams(start, count)
            return
        first = self._frame(start, count, offloaded)
        size = start + count - first
        self._engine.write(first, size)
        if self._engine.blocked is not None:
            self._steer()
        self._records += 1 + (count >> 14)
        self.sent_to_tls += count
        self._encrypted += size
        if self._encrypted >= FLUSH_AT:
            self._push()

    def send_alone(self, start: int, count: int, offloaded: bool) -> None:
        if offloaded and self._cuts:
            self.send_packet(start, count, offloaded)
            self.flush()
            return
        # Nothing waits: so it is not `busy`. Each call less on this way is a hundredth of a ping's time.
        first = self._frame(start, count, offloaded)
        ready = self._engine.encrypt_at(first, start + count - first)
        try:
            sent = self._send(self._transformed[:ready])
        except OSError as error:
            sent = self._unable(error)
        if sent < ready:
            self._unsent = bytearray(self._transformed[sent:ready])
        if sent < ready or self._engine.blocked is not None:
            self._steer()
        self._records += 1 + (count >> 14)
        self.sent_to_tls += count
        self._encrypted = 0

    def cut_datagrams(self) -> None:
        self._cuts = True

    def _send_datagrams(self, start: int, count: int) -> None:
        try:
            datagrams = packets(self._received, start, count)
        except CutError:
            self._receiver.dropped(Drop.MALFORMED)
            return
        for datagram in datagrams:
            if self.busy:
                self._receiver.dropped(Drop.BUSY)
                continue
            self._received[start : start + len(datagram)] = datagram
            self.send_packet(start, len(datagram), False)

    def _frame(self, start: int, count: int, offloaded: bool) -> int:
        """Put a message's header in front of the packet at `start`; where the message begins."""
        received, first = self._received, start
        kind, length = _PACKET, count
        if offloaded:
            first, kind = start - VIRTIO, _OFFLOADED
        elif count <= brief.LIMIT:
            place, known = self._headers.place(received, start, count)
            if known:
                version = received[start] >> 4
                first = start + brief.SAVED[version]
                if version == 4:
                    received[first : first + 2] = received[start + 4 : start + 6]
                kind, length = BRIEF[version], place << BRIEF_PLACE | start + count - first
        first -= HEADER
        received[first], received[first + 1], received[first + 2] = kind, length >> 8, length & 0xFF
        return first

    def flush(self) -> None:
        if self._encrypted:
            self._push()

    def close(self) -> None:
        if self._over or self._closing:
            return
        self._closing = True
        self._engine.close()
        self._push()
        self._steer()
        self._farewell = self._loop.call_later(FAREWELL, self._finish, End.CLOSED)
        self._shut_if_sent()

    def abort(self, reason: str) -> None:
        self.reason = reason
        self._finish(End.RESET)

    # --- of the connection ---

    def wind_up(self) -> None:
        """Tell the peer the end, and be over."""
        self.send_message(Kind.BYE, b"the other end ends the link")
        self._engine.close()
        self._push()
        self._finish(End.CLOSED)

    # --- from the peer ---

    @property
    def _over(self) -> bool:
        return self._done.done()

    def _readable(self) -> bool:
        """Take one read; whether there was anything to take, an end included."""
        try:
            count = self._recv(self._received)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lose(error)
            return True
        if not count:
            self._stream_ended()
            return True
        if not self._answered:
            self._answered = True
            if self._observer is not None:
                self._observer.tls_answered()
        if count <= ALONE:
            self._take_first(count)
        else:
            if count > BURST and self._trimming is None:
                self._trimming = self._loop.call_later(TRIM_AFTER, self._trim)
            self._take(self._engine.decrypt(count))
        return True

    def _take_first(self, count: int) -> None:
        """Hand on the first record at once, and what the interface has to answer: somebody waits for it."""
        engine = self._engine
        plaintext = engine.first(count)
        if plaintext:
            try:
                packet = self._cutter.alone(self._transformed[:plaintext])
                if packet is not None:
                    self._records += 1
                    self.sent_to_plain += len(packet)
                    self._receiver.take_packet(packet, False)
            except FrameError as error:
                self._break_off(error)
                return
            if packet is None and not self._cut(plaintext):
                return
            self._receiver.delivered()
        self._take(engine.drain() if engine.status is _OPEN else 0)

    def _take(self, plaintext: int) -> None:
        """Hand on what was decrypted, then see to what else reading made of the engine."""
        engine = self._engine
        if plaintext and not self._cut(plaintext):
            return
        if engine.blocked is not None:
            engine.resume()
            self._steer()
            if not self.busy and not self._over:
                self._receiver.ready_again()
        self._push()
        if plaintext:
            self._receiver.delivered()
        if engine.status is _FAILED:
            self.reason = str(engine.failure)
            self._finish(End.TLS_FAILED)
        elif engine.status is _CLOSED:
            self._peer_closed()

    def _cut(self, plaintext: int) -> bool:
        """Hand on the messages in it; False where the link is over.

        Packets that were under way when it was to end are delivered yet; nothing else is heard any more.
        """
        self._records += 1 + (plaintext >> 14)
        receiver = self._receiver
        try:
            for kind, body in self._cutter.feed(self._transformed[:plaintext]):
                if self._done.done():
                    return False
                if kind >= _PACKET:
                    self.sent_to_plain += len(body)
                    receiver.take_packet(body, kind == _OFFLOADED)
                elif not self._closing:
                    receiver.take_message(kind, body.tobytes())
        except FrameError as error:
            self._break_off(error)
            return False
        return True

    def _break_off(self, error: FrameError) -> None:
        """The peer has broken the rules."""
        self.reason = str(error)
        self._engine.close()
        self._push()
        self._finish(End.NEGOTIATION_FAILED)

    def _peer_closed(self) -> None:
        if not self._over and not self._closing:
            self._engine.close()
            self._push()
        self._finish(End.CLOSED)

    def _stream_ended(self) -> None:
        if not self._closing:
            self.truncated = True
            self.reason = "the peer ended the connection without a close_notify"
            if self._observer is not None:
                self._observer.tls_truncated()
        self._finish(End.CLOSED)

    def _failed(self) -> None:
        self._lose(ConnectionResetError(errno.ECONNRESET, "reset"))

    def _lose(self, error: OSError) -> None:
        if self._closing:
            self._finish(End.CLOSED)
            return
        self.reason = f"{os_reason(error)} ({error.errno})"
        self._finish(End.RESET)

    # --- to the peer ---

    def _push(self) -> None:
        """Send what the engine has for the peer, behind what still waits."""
        self._encrypted = 0
        while count := self._engine.output():
            if self._unsent is not None or self._done.done():
                self._keep(count)
            else:
                try:
                    sent = self._send(self._transformed[:count])
                except OSError as error:
                    sent = self._unable(error)
                if sent < count:
                    self._unsent = bytearray(self._transformed[sent:count])
                    self._steer()
            if count < len(self._transformed):
                break

    def _unable(self, error: OSError) -> int:
        """The socket has taken nothing: for now, or the stream is lost."""
        if not isinstance(error, (BlockingIOError, InterruptedError)):
            self._lose(error)
        return 0

    def _keep(self, count: int) -> None:
        """Put ciphertext behind what waits already."""
        if self._unsent is None or self._over:
            return
        self._unsent += self._transformed[:count]
        if len(self._unsent) > CONTROL_LIMIT:
            self.abort("the peer makes this end answer, and reads nothing")

    def _writable(self) -> None:
        waiting = self._unsent
        if waiting is None:
            return
        try:
            sent = self._send(memoryview(waiting))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        self._unsent = waiting[sent:] if sent < len(waiting) else None
        if self._unsent is None:
            self._steer()
            self._shut_if_sent()
            if not self.busy and not self._over:
                self._receiver.ready_again()

    def _shut_if_sent(self) -> None:
        if self._closing and self._unsent is None and not self._over:
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_WR)

    # --- the end ---

    def _steer(self) -> None:
        self.busy = self._unsent is not None or self._engine.blocked is not None or self._closing
        self._interest.set(not self._over, not self._over and self._unsent is not None)

    def _finish(self, end: End) -> None:
        if not self._done.done():
            self._done.set_result(end)
        self._steer()

    def _trim(self) -> None:
        self._trimming = None
        if not self._over and self._engine.status is _OPEN and self._engine.blocked is None:
            self._push()
            self._engine.trim()

    def _detach(self) -> None:
        for timer in (self._farewell, self._trimming):
            if timer is not None:
                timer.cancel()
        self._interest.close()
        if not self._done.done():  # the connection's task was cancelled
            self._done.cancel()
