"""What one link sends: packets and records sealed into datagrams, with parities where the way loses some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from culvert.tls.datagram import HANDSHAKE_MOST, DatagramEngine
from culvert.tls.engine import Status
from culvert.vpn.datagram.cutting import TooLongError, cut
from culvert.vpn.datagram.repair import PARITY_HEADER, SMALLEST, Protector
from culvert.vpn.datagram.udp import Way

if TYPE_CHECKING:
    from culvert.vpn.datagram.port import Port

GROUP_PATIENCE = 0.004
"""Seconds until a parity is sent for fewer records than it could cover."""


class Sealer:
    """The way out. `failed` is called where the engine seals nothing any more."""

    def __init__(self, port: Port, engine: DatagramEngine, ahead: bytes, failed: Callable[[], None]) -> None:
        """`ahead` stands in front of each datagram."""
        self._port = port
        self._engine = engine
        self._outbox = port.outbox
        self._plain, self._sealed = port.buffers.scratch.received, port.buffers.sealed
        self._failed = failed
        self.ahead = ahead
        self.protector = Protector()
        self.room = 0
        """Bytes of plaintext that a record has room for."""
        self.records = 0
        self._closing_group: asyncio.TimerHandle | None = None

    @property
    def blocked(self) -> bool:
        """Whether the socket takes nothing just now."""
        return self._outbox.blocked

    def close(self) -> None:
        """Send no parity any more."""
        if self._closing_group is not None:
            self._closing_group.cancel()

    def packet(self, start: int, count: int, way: Way, *, offloaded: bool) -> None:
        """Seal the packet of `count` bytes at `start` of `scratch.received`; `flush` sends it at the latest.

        Raises TooLongError and CutError.
        """
        if self.protector.group:
            self._protected(start, count, way, offloaded=offloaded)
        elif offloaded:
            self._run(cut(self._plain, start, count, self.room), way)
        elif count > self.room:
            raise TooLongError
        else:
            self._one(start, count, way)

    def record(self, record: bytes, way: Way) -> None:
        """Seal and send one record."""
        self._add(record, way)
        self.flush()

    def flight(self, way: Way) -> None:
        """Send what the engine has to say by itself: handshakes and alerts."""
        for datagram in self._engine.datagrams(HANDSHAKE_MOST - len(self.ahead)):
            self._port.udp.send_alone(self.ahead + datagram, way)

    def farewell(self, way: Way) -> None:
        """Send the engine's last alert, twice: one may get lost, and a second copy is dropped as such."""
        for datagram in self._engine.datagrams():
            for _ in range(2):
                self._port.udp.send_alone(self.ahead + datagram, way)

    def flush(self) -> None:
        """Send all that was sealed."""
        if not self._outbox.flush():
            self._port.wait()
        self._port.look_for_fault()

    def _place(self, way: Way) -> int:
        """Where the next datagram is to stand, with what goes ahead already there; negative for nowhere."""
        place = -1 if self._outbox.blocked else self._outbox.place(way)
        if place < 0:
            self._port.wait()
        else:
            self._sealed[place : place + len(self.ahead)] = self.ahead
        return place

    def _add(self, record: bytes, way: Way) -> None:
        place, skip = self._place(way), len(self.ahead)
        if place >= 0:
            self._done(self._engine.seal_bytes(record, place + skip))

    def _one(self, start: int, count: int, way: Way) -> int:
        """Seal one packet; its record's number, 0 where there is none."""
        place, skip = self._place(way), len(self.ahead)
        if place < 0:
            return 0
        size = self._engine.seal(start, count, place + skip)
        number = int.from_bytes(self._sealed[place + skip + 3 : place + skip + 11], "big")
        return number if self._done(size) else 0

    def _done(self, size: int) -> bool:
        if not size:
            self._failed()
            return False
        self._outbox.add(size + len(self.ahead))
        self.records += 1
        return True

    def _run(self, cuts: Iterable[tuple[int, int]], way: Way) -> None:
        """Seal segments of one length in one go, or in several where they are many and small."""
        left = iter(cuts)
        while True:
            if not self._outbox.flush():
                self._port.wait()
                return
            end, size, more = self._engine.seal_run(left, self._outbox.place(way), self.ahead)
            if not size:
                if self._engine.status is Status.FAILED:
                    self._failed()
                return
            self._outbox.add_run(end, size)
            self.records += end // size + 1
            if not more:
                return

    def _protected(self, start: int, count: int, way: Way, *, offloaded: bool) -> None:
        """Seal a packet with parities among its records."""
        protector, most = self.protector, self.room - PARITY_HEADER
        if not offloaded and count > self.room:
            raise TooLongError
        room = self.room if count < self.room else most
        for at, length in cut(self._plain, start, count, room) if offloaded else ((start, count),):
            plaintext = bytes(self._plain[at : at + length])
            number = self._one(at, length, way)
            if number and SMALLEST <= length <= most:
                parity = protector.add(number, plaintext)
                if parity is not None:
                    self._add(parity, way)
        if protector.pending and self._closing_group is None:
            loop = self._port.loop
            self._closing_group = loop.call_later(GROUP_PATIENCE, self._close_group, way)

    def _close_group(self, way: Way) -> None:
        self._closing_group = None
        parity = self.protector.parity()
        if parity is not None:
            self.record(parity, way)
