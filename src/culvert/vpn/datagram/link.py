"""A link over DTLS: one peer, one DTLS connection, wherever the peer's datagrams come from.

In front of each datagram to a server stand IDENT bytes that the client has drawn: by these the server knows
the link, so a client whose address changes keeps it. To a client there is nothing in front.

A server goes along with a client that moves (`whereabouts`).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from culvert.config.vpn import IpAddress
from culvert.stream import End
from culvert.tls.datagram import DatagramEngine
from culvert.tls.engine import Status
from culvert.tls.failure import TlsError
from culvert.vpn import icmp
from culvert.vpn.datagram import records
from culvert.vpn.datagram.cutting import CutError, TooLongError, packets
from culvert.vpn.datagram.delivery import WINDOW, DeliveryError, Incoming, Outgoing
from culvert.vpn.datagram.doubt import STRANGER, Doubt
from culvert.vpn.datagram.handshake import Handshake
from culvert.vpn.datagram.opening import Opener
from culvert.vpn.datagram.passage import Passage
from culvert.vpn.datagram.records import Piece, Sort
from culvert.vpn.datagram.repair import PARITY_HEADER, loss, read_loss
from culvert.vpn.datagram.sealing import Sealer
from culvert.vpn.datagram.too_long import carry
from culvert.vpn.datagram.udp import Arrival, Way
from culvert.vpn.datagram.whereabouts import Whereabouts
from culvert.vpn.tally import Drop
from culvert.vpn.transport import FrameError, Kind, Receiver

if TYPE_CHECKING:
    from culvert.vpn.datagram.port import Port

IDENT = 4
"""Bytes in front of each datagram to a server."""

BYTES_LIMIT = 1 << 36
RECORDS_LIMIT = 1 << 28
"""What one key may encrypt: a sixth of what AES-GCM is good for (RFC 8446, 5.5)."""

OVERDUE = 4
"""How many times that a server lets a key encrypt: its client is to have made a new link long before."""

REPORT_PAUSE = 0.5
"""Seconds between reports of loss."""


class DatagramLink:
    """The transport over one DTLS connection: `shake_hands`, `open`, `attach` a receiver, `run`."""

    name = "DTLS"
    offload = True

    def __init__(self, port: Port, engine: DatagramEngine, way: Way, ident: bytes, *, server: bool) -> None:
        """`ident` is what the client has drawn; `way` is where its first datagrams go to or come from."""
        self._port = port
        self._loop = port.loop
        self.engine = engine
        self.way = way
        self.ident = ident
        self.server = server
        self._plain = port.buffers.scratch.received
        ahead, self._expected = (b"", ident) if server else (ident, b"")
        self._sealer = Sealer(port, engine, ahead, self._fail)
        self._opener = Opener(port.buffers, engine, self._expected, self._take_record, self._not_data)
        self._receiver: Receiver | None = None
        self._opened = False
        self._outgoing, self._incoming = Outgoing(), Incoming()
        self._kept: list[Piece] = []
        self._passage = Passage(engine, self._sealer, self._expected, way, self._loop.time())
        self._whereabouts = Whereabouts(self._loop, self._sealer.record)
        self._handshake: Handshake | None = Handshake(engine, self._loop, self._answer)
        self._done: asyncio.Future[End] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._reported = self._loop.time()
        self.doubt = Doubt(self._loop, self._ask, self._give_up)
        self._closing = False
        self.on_path: Callable[[], None] = lambda: None
        """Called where `path_mtu` has become another one."""
        self.on_moving: Callable[[Way], None] = self.move
        """Called where the peer has shown that it is elsewhere: to `move` there, if it may be there."""
        self.on_move: Callable[[Way], None] = lambda way: None
        """Called where the peer has another address than before."""
        self.reason: str | None = None
        self.unanswered = False
        """Whether it has ended because nothing was answered any more."""
        self.truncated = False
        self.sent_to_tls = self.sent_to_plain = 0

    # --- the handshake ---

    async def shake_hands(self, timeout: float) -> None:
        """Finish the handshake within so many seconds. Raises TlsError, TimeoutError, or
        ConnectionRefusedError where a client is told that nobody listens.
        """
        assert self._handshake is not None  # noqa: S101  to be run once
        try:
            await self._handshake.finished(timeout)
        finally:
            self._handshake = None

    def make_room(self) -> None:
        """Others have come since, and nothing is heard of this one: it is no more known to the port."""
        if self._handshake is not None:
            self._handshake.fail(TlsError("too many handshakes at once, of which this was the oldest"))
        else:
            self.abort("too many handshakes at once, of which this was the oldest")

    def _answer(self) -> None:
        self._sealer.flight(self.way)
        self._arm()

    # --- of `Transport` ---

    @property
    def path_mtu(self) -> int | None:
        return self._sealer.room - 1 - PARITY_HEADER

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """The peer's in the VPN, once it was met."""
        return self._receiver.addresses if self._receiver is not None else ()

    @property
    def busy(self) -> bool:
        return self._sealer.blocked or self._closing

    @property
    def worn(self) -> bool:
        return self._used(1)

    @property
    def overdue(self) -> bool:
        return self._used(OVERDUE)

    def _used(self, times: int) -> bool:
        octets = max(self.sent_to_tls, self.sent_to_plain)
        return self._sealer.records >= times * RECORDS_LIMIT or octets >= times * BYTES_LIMIT

    def send_message(self, kind: Kind, body: bytes) -> None:
        if self._receiver is None or self._closing:
            return
        if kind is Kind.PING or kind is Kind.PONG:
            self._sealer.record(bytes((kind,)) + body[: records.ECHO_LIMIT], self.way)
            return
        self._outgoing.put(kind, body, self._loop.time())
        self._tick()

    def send_packet(self, start: int, count: int, offloaded: bool) -> None:
        if self._receiver is None:
            return
        if self.busy:
            self._receiver.dropped(Drop.BUSY)
            return
        try:
            self._sealer.packet(start, count, self.way, offloaded=offloaded)
        except TooLongError:
            self._too_long(self._receiver, start, count, offloaded=offloaded)
        except CutError:
            self._receiver.dropped(Drop.MALFORMED)
        self.sent_to_tls += count

    def cut_datagrams(self) -> None:
        """They always are, and the peer joins none."""

    def send_alone(self, start: int, count: int, offloaded: bool) -> None:
        self.send_packet(start, count, offloaded)
        self._sealer.flush()

    def flush(self) -> None:
        self._sealer.flush()

    def close(self) -> None:
        if self._closing:
            return
        self.flush()
        self._stop()
        self.engine.close()
        self._sealer.farewell(self.way)
        self._finish(End.CLOSED)

    def abort(self, reason: str) -> None:
        self._stop()
        self.reason = self.reason or reason
        self._finish(End.RESET)

    # --- of the connection ---

    def open(self) -> None:
        """The peer is who it should be: find out how long packets may be, and take messages once there is
        a receiver.
        """
        self._opened = True
        if not self.server:
            self.doubt.watch(lambda: self.sent_to_tls + self.sent_to_plain)
        self._measured(self._passage.measure())
        self._arm()

    def without_parities(self) -> None:
        """Send none, whatever the way loses."""
        self._sealer.protector.wanted = False

    def attach(self, receiver: Receiver) -> None:
        """From now on messages go to this receiver, and are taken from it."""
        self._receiver = receiver
        self._loop.call_soon(self._take_kept)

    def _take_kept(self) -> None:
        kept, self._kept = self._kept, []
        try:
            for piece in kept:
                if not self._closing:
                    self._take_piece(piece)
        except (FrameError, DeliveryError) as error:
            self._break_off(str(error))

    def establish(self) -> bool:
        """Of a client's link: know it by what the client has drawn alone, wherever it comes from; False where
        another has drawn the same.
        """
        return self._port.establish(self)

    async def settle(self, timeout: float) -> None:
        """Wait until it is known how long packets may be, the peer speaks, or so many seconds are over."""
        until = self._loop.time() + timeout
        while self._passage.searching and not (self._kept or self._done.done()) and self._loop.time() < until:
            await asyncio.sleep(0.01)

    async def run(self) -> End:
        """Carry messages until the end; `reason` then says more of it."""
        try:
            return await self._done
        finally:
            self.release()
            self._tell_dropped()
            if self._receiver is not None:
                self._receiver.ended(self.reason or "")

    def wind_up(self) -> None:
        """Tell the peer the end, and be over."""
        self.send_message(Kind.BYE, b"the other end ends the link")
        self.close()

    def release(self) -> None:
        """Take no more datagrams; for a link that is not run as well."""
        self._stop()
        self._port.forget(self)
        self._sealer.close()
        self.doubt.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._done.done():
            self._done.cancel()

    # --- from the peer ---

    def receive(self, start: int, arrival: Arrival) -> int:
        """Take those datagrams of `arrived` from `start` on that are this link's; up to where that was."""
        end, size = arrival.count, arrival.size
        if not self.server and arrival.way.peer != self.way.peer:
            return end
        if not self._opened:
            if self._handshake is not None:
                skip = len(self._expected)
                self._handshake.take(start + skip, min(size, end - start) - skip)
            return start + size
        if end == len(STRANGER) and not self.server and self._port.buffers.arrived[:end] == STRANGER:
            self.doubt.begin()
            return end
        try:
            start, number = self._opener.receive(start, arrival)
        except (FrameError, DeliveryError) as error:
            self._break_off(str(error))
            return end
        if number >= 0 and self.server and not self._closing:
            self._whereabouts.notice(number, arrival.way, self.way)
        return end if self._closing else start

    def settle_batch(self) -> None:
        """All that came has been given to `receive`."""
        if not self._opened:
            return
        try:
            self._opener.deliver()
            if self._receiver is not None and not self._closing:
                self._receiver.delivered()  # first of all: somebody waits for the answer
            self._opener.settle()
            if not self._closing:
                self._not_data()
                if self._receiver is not None and not self._closing:
                    self._report()
        except FrameError as error:
            self._break_off(str(error))

    def _report(self) -> None:
        """Tell the peer what was lost, now and then."""
        now = self._loop.time()
        if now - self._reported >= REPORT_PAUSE:
            self._reported = now
            self._tell_dropped()
            lost = self._opener.restorer.report()
            if lost is not None:
                self._sealer.record(loss(lost), self.way)

    def _tell_dropped(self) -> None:
        """Have the records counted that were none."""
        dropped, self._opener.dropped = self._opener.dropped, 0
        if dropped and self._receiver is not None:
            self._receiver.dropped(Drop.UNREADABLE, dropped)

    def _not_data(self) -> None:
        """Reading may have made an answer, or be the end."""
        self._sealer.flight(self.way)
        if self.engine.status is Status.CLOSED:
            self.close()
        elif self.engine.status is Status.FAILED:
            self._fail()

    def _take_record(self, record: bytes, way: Way) -> None:
        sort, content = records.read(record)
        now = self._loop.time()
        if isinstance(content, Piece):
            self._take_piece(content)
        elif isinstance(content, int):
            self._outgoing.acknowledged(content, now)
        elif sort is Sort.PARITY:
            self._opener.restore(content, way)
        elif sort is Sort.PART:
            self._opener.join(content, way)
        elif sort is Sort.LOSS:
            self._sealer.protector.hear(read_loss(content))
        elif sort is Sort.PROBE:
            self._sealer.record(records.seen(content), way)
            if way == self.way or not self.server:
                self._passage.suggest(len(record), now)
        elif sort is Sort.SEEN:
            self.doubt.answered = True
            self._measured(self._passage.answered(content, now))
            if self._whereabouts.answered(content, way):
                self.on_moving(way)
        else:
            self._message(Kind(sort), content)
        self._tick()

    def _take_piece(self, piece: Piece) -> None:
        if self._receiver is None:
            if len(self._kept) < WINDOW:
                self._kept.append(piece)
            return
        for kind, body in self._incoming.take(piece):
            self._message(kind, body)
        if not self._closing:
            self._sealer.record(records.ack(self._incoming.expected), self.way)

    def _message(self, kind: Kind, body: bytes) -> None:
        if self._receiver is not None and not self._closing:
            self._receiver.take_message(kind, body)
            # Packets that have overtaken the first message are nobody's yet.
            self._opener.deliver_to(self._packet)

    def _packet(self, frame: memoryview, offloaded: bool) -> None:
        self.sent_to_plain += len(frame)
        if self._receiver is not None:
            self._receiver.take_packet(frame, offloaded)

    def move(self, way: Way) -> None:
        """Send what is the peer's there from now on."""
        self.way = way
        self._measured(self._passage.move(way, self._loop.time()))
        self.on_move(way)

    # --- to the peer ---

    def _tick(self) -> None:
        """Send what is due."""
        if self._closing:
            return
        now = self._loop.time()
        if self._handshake is not None:
            self._handshake.tick()
            return
        if not self._opened:
            return
        try:
            for one in self._outgoing.due(now):
                self._sealer.record(records.piece(one), self.way)
        except DeliveryError as error:
            self.abort(str(error))
            return
        self._measured(self._passage.tick(now))
        self._arm()

    def _arm(self) -> None:
        """Have `_tick` called when something is due next."""
        now = self._loop.time()
        if self._handshake is not None:
            timeout = self.engine.timeout()
            when = now + timeout if timeout is not None else None
        else:
            when = min(self._outgoing.deadline or self._passage.deadline, self._passage.deadline)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_at(max(when, now + 0.001), self._tick)

    # --- how long packets may be ---

    def refused(self, size: int) -> None:
        """This machine will not send datagrams of this size."""
        self._measured(self._passage.refused(size, self._loop.time()))
        self._arm()

    def complained(self, error: int) -> None:
        """The network says that something of what was sent has not arrived."""
        if error == errno.ECONNREFUSED and not self.server and self._handshake is not None:
            self._handshake.fail(ConnectionRefusedError(error, os.strerror(error)))
        elif error == errno.ECONNREFUSED and not self.server and self._opened:
            self.doubt.begin()
        elif error == errno.EMSGSIZE and self._opened:
            self._passage.doubt(self._loop.time())
            self._arm()

    def _ask(self) -> None:
        self._sealer.record(records.probe(os.urandom(records.TOKEN), 0), self.way)

    def _give_up(self, told: bool) -> None:
        self.unanswered = not told
        self.abort(
            "the server does not know of this link any more"
            if told
            else "nothing is answered over UDP any more"
        )

    def _measured(self, changed: bool) -> None:
        """Tell that packets may have another length than before, if that is so."""
        if changed:
            self.on_path()

    def _too_long(self, receiver: Receiver, start: int, count: int, *, offloaded: bool) -> None:
        """Cut a packet that is too long, or tell its sender how long it may be."""
        plain, room = self._plain, self._sealer.room
        try:
            whole = packets(plain, start, count) if offloaded else [bytes(plain[start : start + count])]
        except CutError:
            receiver.dropped(Drop.MALFORMED)
            return
        carried, refused = carry(whole, room, self._opener.parts)
        for record in carried:
            self._sealer.record(record, self.way)
        if refused:
            receiver.dropped(Drop.TOO_LONG, len(refused))
            told = icmp.too_long(refused[0][:1500], room - 1 - PARITY_HEADER)
            if told is not None:
                receiver.take_packet(memoryview(told), False)

    # --- the end ---

    def ready_again(self) -> None:
        """The socket has room."""
        if self._receiver is not None and not self._closing:
            self._receiver.ready_again()

    def _break_off(self, reason: str) -> None:
        """The peer has broken the rules."""
        self.engine.close()
        self._sealer.flight(self.way)
        self._stop()
        self.reason = reason
        self._finish(End.NEGOTIATION_FAILED)

    def _fail(self) -> None:
        self._stop()
        self.reason = str(self.engine.failure)
        self._finish(End.TLS_FAILED)

    def _stop(self) -> None:
        """Take nothing and send nothing any more."""
        self._closing = self._opener.over = True

    def _finish(self, end: End) -> None:
        if not self._done.done():
            self._done.set_result(end)
