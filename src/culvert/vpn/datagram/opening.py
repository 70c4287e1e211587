"""What one link receives: datagrams opened into packets and records, and what was lost restored."""

from __future__ import annotations

from collections.abc import Callable

from culvert.tls.datagram import DatagramEngine, DatagramScratch
from culvert.vpn.datagram.joining import Deliver, Joiner
from culvert.vpn.datagram.parts import Parts
from culvert.vpn.datagram.records import PACKETS, RecordError, Sort
from culvert.vpn.datagram.repair import SMALLEST, Restorer
from culvert.vpn.datagram.udp import Arrival, Way

_RESTORABLE = PACKETS | {Sort.PARTIAL}
"""How records begin that parities cover."""


class Opener:
    """The way in. `record` takes each record that is no packet; `silent` is called for a datagram of which
    nothing was to be read: the engine may have an answer, or have come to its end.
    """

    def __init__(
        self,
        buffers: DatagramScratch,
        engine: DatagramEngine,
        ahead: bytes,
        record: Callable[[bytes, Way], None],
        silent: Callable[[], None],
    ) -> None:
        """`ahead` stands in front of each datagram that is the link's."""
        self._arrived, self._opened = buffers.arrived, buffers.opened
        self._engine = engine
        self._ahead = ahead
        self._unseal = self._unseal_own if ahead else engine.unseal
        self._record, self._silent = record, silent
        self._joiner = Joiner(buffers.opened, self._early)
        self.restorer = Restorer()
        self.parts = Parts()
        self.dropped = 0
        self.over = False
        """Whether nothing is to be taken any more."""

    def deliver_to(self, deliver: Deliver) -> None:
        """Hand packets to this one from now on; until then they are dropped."""
        self._joiner.deliver_to(deliver)

    def receive(self, begin: int, arrival: Arrival) -> tuple[int, int]:
        """Take those datagrams of `arrived` from `begin` on that are the link's; up to where that was, and
        the number of the last one that was the peer's, or -1.

        What `record` raises comes through.
        """
        end, size, ahead, skip = arrival.count, arrival.size, self._ahead, len(self._ahead)
        arrived, joiner, active = self._arrived, self._joiner, self.restorer.active
        last, came = -1, 0
        while begin < end and not self.over and arrived[begin : begin + skip] == ahead:
            length = min(size, end - begin)
            opened = self._engine.unseal(begin + skip, length - skip, joiner.place)
            if opened:
                last, came = begin, came + 1
                if active:
                    self._keep(begin + skip, opened)
            begin += length
            self._take(opened, arrival.way)
            while joiner.running and not active and not self.over:
                before = begin
                begin, opened = joiner.go_on(self._unseal, arrived, begin, end, size)
                came += (begin - before) // size - (opened == 0)
                if begin > before and opened:
                    last = begin - size
                if opened < 0:
                    break
                self._take(opened, arrival.way)
        if last < 0:
            return begin, -1
        number = int.from_bytes(arrived[last + skip + 3 : last + skip + 11], "big")
        self.restorer.count(number, came)
        return begin, number

    def deliver(self) -> None:
        """All of a batch was given: deliver what was joined; `settle` follows."""
        self._joiner.flush()

    def settle(self) -> None:
        """Have nothing wait in the engine."""
        if not self.over:
            self.dropped += self._engine.settle(self._joiner.place)

    def restore(self, parity: bytes, way: Way) -> None:
        """Go on with what a parity restores. Raises RecordError."""
        restored = self.restorer.take(parity)
        if restored is not None:
            self._insert(restored, way)

    def join(self, part: bytes, way: Way) -> None:
        """Go on with the packet that is complete with this part, if one is. Raises RecordError."""
        packet = self.parts.take(part)
        if packet is not None:
            self._insert(packet, way)

    def _insert(self, restored: bytes, way: Way) -> None:
        if restored[0] not in _RESTORABLE:
            raise RecordError("what was restored is no packet")
        place = self._joiner.place
        self._opened[place : place + len(restored)] = restored
        self._take(len(restored), way)

    def _take(self, count: int, way: Way) -> None:
        """Go on with what `unseal` has said of a datagram."""
        if not count:
            self._silent()
            return
        try:
            record = self._joiner.take(count)
            if record is not None:
                self._record(record, way)
        except RecordError:
            self.dropped += 1

    def _keep(self, start: int, count: int) -> None:
        """Keep the record that was opened last, for the parity that may follow."""
        if count >= SMALLEST:
            number = int.from_bytes(self._arrived[start + 3 : start + 11], "big")
            place = self._joiner.place
            self.restorer.keep(number, bytes(self._opened[place : place + count]))

    def _unseal_own(self, start: int, count: int, at: int) -> int:
        """As the engine's, for a datagram with `ahead` in front: 0 for one that has something else there."""
        skip = len(self._ahead)
        if self._arrived[start : start + skip] != self._ahead:
            return 0
        return self._engine.unseal(start + skip, count - skip, at)

    def _early(self, frame: memoryview, offloaded: bool) -> None:
        self.dropped += 1
