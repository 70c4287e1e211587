"""A UDP port: its datagrams are sorted by their links; what is of none may be a new client's.

Pitfall: libuv, under uvloop, stops watching a descriptor for good that has an error to report, and here that
is what any host has said of any datagram. So the socket stands in an epoll of its own, and that is what the
loop watches: it is readable as long as there is something to do, and never has an error.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable

from culvert.tls.datagram import APPLICATION_DATA, HEADER, DatagramEngine, DatagramScratch
from culvert.vpn.datagram.doorstep import Doorstep
from culvert.vpn.datagram.doubt import STRANGER
from culvert.vpn.datagram.link import IDENT, DatagramLink
from culvert.vpn.datagram.strangers import Strangers
from culvert.vpn.datagram.udp import Arrival, Outbox, UdpSocket, Way

BATCH = 16
"""Reads of the socket for one readiness event: then it is the interface's turn."""

ALONE = 512
"""Bytes of a datagram that hardly has others behind it: it is handed on before a look for them."""

_HANDSHAKE = 22
"""How a record of a handshake begins."""

Greet = Callable[[int, int, bytes, DatagramScratch, float], bytes | DatagramEngine]
"""`DatagramContext.greet`."""


class Port:
    """One bound socket and the links over it. A server's greets; a client has one link alone."""

    def __init__(
        self, sock: socket.socket, buffers: DatagramScratch, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self.buffers = buffers
        self.udp = UdpSocket(sock, buffers)
        self.outbox = Outbox(self.udp, buffers)
        self._links: dict[bytes, DatagramLink] = {}
        self._doorstep = Doorstep()
        self._ident = 0
        self._greet: Greet | None = None
        self._welcome: Callable[[DatagramLink], None] = lambda link: None
        self._crowded: Callable[[Way], object] = lambda way: None
        self._waiting = False
        self._closed = False
        self._strangers = Strangers()
        self._flooded: Callable[[Way], object] = lambda way: None
        self._strays = memoryview(bytearray(8)).cast("Q")
        """Datagrams of no link that were no client's either."""
        self._epoll = select.epoll()
        self._epoll.register(self.udp.fileno(), select.EPOLLIN)
        loop.add_reader(self._epoll.fileno(), self._ready)

    @property
    def strays(self) -> int:
        """Datagrams that were nobody's."""
        number: int = self._strays[0]
        return number

    def count_strays(self, cell: memoryview) -> None:
        """Count them there, a number of eight bytes, together with whoever else does."""
        self._strays = cell

    def close(self) -> None:
        """Take and send nothing more."""
        if not self._closed:
            self._closed = True
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self.udp.close()

    def listen(
        self,
        greet: Greet,
        welcome: Callable[[DatagramLink], None],
        crowded: Callable[[Way], object] = lambda way: None,
        flooded: Callable[[Way], object] = lambda way: None,
    ) -> None:
        """Serve clients: `welcome` gets the link of each that has shown its cookie, to shake hands. `crowded`
        is told whose handshake had to make room for another one, and `flooded` where one comes from
        of many datagrams of nobody.
        """
        self._ident = IDENT
        self._greet, self._welcome = greet, welcome
        self._crowded, self._flooded = crowded, flooded

    def stop_greeting(self) -> None:
        """Take no new clients."""
        self._greet = None

    def dial(self, engine: DatagramEngine, way: Way, ident: bytes) -> DatagramLink:
        """The link to a server."""
        link = self._links[b""] = DatagramLink(self, engine, way, ident, server=False)
        return link

    def establish(self, link: DatagramLink) -> bool:
        """Know a client by its ident alone from now on; False where another one has it."""
        if self._links.setdefault(link.ident, link) is not link:
            return False
        self._doorstep.remove(link)
        return True

    def forget(self, link: DatagramLink) -> None:
        """A link is over."""
        key = link.ident if link.server else b""
        if self._links.get(key) is link:
            del self._links[key]
        self._doorstep.remove(link)

    # --- to the network ---

    def wait(self) -> None:
        """Go on when the socket has room."""
        if self.outbox.blocked and not self._waiting and not self._closed:
            self._waiting = True
            self._epoll.modify(self.udp.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def look_for_fault(self) -> None:
        """Tell the link whose datagrams were too long for this machine to send."""
        fault, self.outbox.fault = self.outbox.fault, None
        if fault is not None and fault[2].errno == errno.EMSGSIZE:
            for link in list(self._links.values()):
                if link.way is fault[0]:
                    link.refused(fault[1])

    def _ready(self) -> None:
        if self._waiting:
            self._retry()
        if not self._closed:
            self._readable()

    def _retry(self) -> None:
        if self.outbox.flush():
            self._waiting = False
            self._epoll.modify(self.udp.fileno(), select.EPOLLIN)
            self.look_for_fault()
            for link in list(self._links.values()):
                link.ready_again()

    # --- from the network ---

    def _readable(self) -> None:
        touched: dict[DatagramLink, None] = {}
        for turn in range(BATCH):
            try:
                arrival = self.udp.receive()
            except OSError:
                self._hear_complaints()
                continue
            if arrival is None:
                if turn == 0:
                    self._hear_complaints()
                break
            self._sort(arrival, touched)
            if turn == 0 and arrival.count <= ALONE and not self._closed:
                self._settle(touched)
            if self._closed:
                return
        self._settle(touched)

    def _settle(self, touched: dict[DatagramLink, None]) -> None:
        """All that has come for these links was given to them."""
        for link in touched:
            link.settle_batch()
        touched.clear()

    def _sort(self, arrival: Arrival, touched: dict[DatagramLink, None]) -> None:
        position, size, width = 0, arrival.size, self._ident
        arrived = self.buffers.arrived
        while position < arrival.count:
            ident = bytes(arrived[position : position + width])
            link = self._links.get(ident) or self._doorstep.find(ident, arrival.way)
            if link is None:
                self._meet(position, min(size, arrival.count - position), arrival.way)
                position += size
                continue
            if link not in touched:
                # The links share the buffer in which their packets stand.
                self._settle(touched)
                touched[link] = None
            position = link.receive(position, arrival)

    def _meet(self, start: int, count: int, way: Way) -> None:
        """A datagram of nobody known: a ClientHello, or nothing."""
        begin, now = start + self._ident, self.loop.time()
        if self._strangers.came(now):
            self._flooded(way)
        if self._greet is None or count <= self._ident or self.buffers.arrived[begin] != _HANDSHAKE:
            self._strays[0] += 1
            if self.buffers.arrived[begin : begin + 3] == APPLICATION_DATA and count > self._ident + HEADER:
                self._tell_stranger(way, now)
            return
        ident = bytes(self.buffers.arrived[start:begin])
        found = self._greet(begin, count - self._ident, ident + way.key(), self.buffers, now)
        if isinstance(found, bytes):
            if found:
                self.udp.send_alone(found, way)
            else:
                self._strays[0] += 1
        else:
            link = DatagramLink(self, found, way, ident, server=True)
            oldest = self._doorstep.add(link)
            if oldest is not None:
                oldest.make_room()
                self._crowded(oldest.way)
            self._welcome(link)

    def _tell_stranger(self, way: Way, now: float) -> None:
        """Say that its datagrams are nobody's: in fewer bytes than they have, and not often."""
        if self._greet is not None and self._strangers.may_be_told(way.peer, now):
            self.udp.send_alone(STRANGER, way)

    def _hear_complaints(self) -> None:
        for complaint in self.udp.complaints():
            for link in [*self._links.values(), *self._doorstep.links()]:
                if link.way.peer == complaint.peer:
                    link.complained(complaint.error)
