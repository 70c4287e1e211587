"""How long the packets of a link may be: what its path carries, less what is put around them."""

from __future__ import annotations

from culvert.tls.datagram import DatagramEngine
from culvert.vpn.datagram import records
from culvert.vpn.datagram.path_mtu import PathMtu
from culvert.vpn.datagram.sealing import Sealer
from culvert.vpn.datagram.udp import Way, first_hop


class Passage:
    """Has the sealer know its room. Times are the event loop's; what changes the room says so by True."""

    def __init__(self, engine: DatagramEngine, sealer: Sealer, expected: bytes, way: Way, now: float) -> None:
        """`expected` is what stands in front of each datagram of the peer's."""
        self._engine = engine
        self._sealer = sealer
        self._expected = len(expected)
        self._way = way
        self._path = PathMtu(first_hop(way), now)
        self._measured = self._added = 0

    @property
    def searching(self) -> bool:
        """Whether it is still being found out."""
        return self._path.searching

    @property
    def deadline(self) -> float:
        """When to `tick`."""
        return self._path.deadline

    def measure(self) -> bool:
        """Reckon the room anew."""
        self._measured = self._path.confirmed
        outer = self._path.confirmed - self._way.overhead
        room = self._engine.capacity(outer - len(self._sealer.ahead))
        self._added = self._path.confirmed - self._engine.capacity(outer - self._expected)
        changed = room != self._sealer.room
        self._sealer.room = room
        return changed

    def move(self, way: Way, now: float) -> bool:
        """The peer is elsewhere: begin anew."""
        self._way, self._path = way, PathMtu(first_hop(way), now)
        return self.measure()

    def tick(self, now: float) -> bool:
        """Send the probe that is due, if one is."""
        probe = self._path.probe(now)
        if probe is None:
            return False
        room = self._engine.capacity(probe.size - self._way.overhead - len(self._sealer.ahead))
        self._sealer.record(records.probe(probe.token, room), self._way)
        return self._path.confirmed != self._measured and self.measure()

    def answered(self, token: bytes, now: float) -> bool:
        """The peer has seen a probe."""
        return self._path.answered(token, now) and self.measure()

    def suggest(self, length: int, now: float) -> None:
        """A probe of the peer's has come, a record of this length: so long a datagram gets through."""
        self._path.suggest(length + self._added, now)

    def refused(self, size: int, now: float) -> bool:
        """This machine will not send datagrams of this size."""
        return self._path.refused(size + self._way.overhead, now) and self.measure()

    def doubt(self, now: float) -> None:
        """The network says that something was too long."""
        self._path.doubt(now)
