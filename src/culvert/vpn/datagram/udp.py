"""UDP sockets: several datagrams in one call, and answers from the address that was asked.

One socket serves all peers of a service. A socket for each peer would be found by the kernel by both
addresses, and a peer that changes its own would end up at none of them; so the local address comes with each
datagram (IP_PKTINFO), and goes back with each answer. A client's socket is not connected either: the kernel
then chooses its source anew for each datagram, and a machine that has moved to another network goes on.

Datagrams of one size go to the kernel as one buffer, and come from it so (UDP_SEGMENT and UDP_GRO, udp(7)):
that is one way through the stack for 45 of them. The kernel never cuts a datagram (IP_PMTUDISC_PROBE): what
is too long is an error here, or is lost on its way, and `path_mtu` finds out.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from culvert.tls.datagram import DatagramScratch

BUFFER = 4 * 1024 * 1024
"""Bytes that the kernel may hold each way: some bursts of 64 kB, which it counts at several times that."""

# Of linux/in.h, linux/in6.h and linux/udp.h: the socket module does not name them.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 10, 23, 3
_IP_PKTINFO = 8
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_IP_MTU, _IPV6_MTU = 14, 24
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_ANCILLARY = 128
_SEGMENTS_MOST = 64
"""Datagrams in one call: as many as any kernel takes."""

_BATCH_MOST = 65000
"""Bytes in one call: what a datagram can have, less room for headers."""

_DATAGRAM_MOST = 17 * 1024
_COMPLAINTS_MOST = 64
_EXTENDED, _LOCAL = struct.Struct("=IB"), 1
"""The beginning of struct sock_extended_err, and what says in it that this machine itself complains."""

_INT = struct.Struct("=i")
_U16 = struct.Struct("=H")

SocketAddress = tuple[Any, ...]
Ancillary = list[tuple[int, int, bytes]]


@dataclass(frozen=True, slots=True)
class Way:
    """Between which addresses datagrams go: the peer's, and the own one: empty where the kernel chooses."""

    peer: SocketAddress
    local: bytes = b""

    @property
    def overhead(self) -> int:
        """Bytes of an IP and a UDP header in front of each datagram."""
        if len(self.peer) == 2 or str(self.peer[0]).startswith("::ffff:"):
            return 20 + 8
        return 40 + 8

    def key(self) -> bytes:
        """All of it in one: what a cookie is bound to."""
        return repr((self.peer, self.local)).encode()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What stands in `arrived` now: `count` bytes, of datagrams of `size` bytes each but for the last."""

    count: int
    size: int
    way: Way


class Complaint(NamedTuple):
    """What a router or a host has said of a datagram that was sent to `peer`. Anybody can say that."""

    peer: SocketAddress
    error: int


class UdpSocket:
    """One bound socket, and the datagrams that wait to be sent over it."""

    def __init__(self, sock: socket.socket, buffers: DatagramScratch) -> None:
        """`sock` is bound, and becomes non-blocking. It is closed by `close`."""
        self.sock = sock
        self._arrived = [memoryview(buffers.arrived)]
        self._sealed = memoryview(buffers.sealed)
        self._six = sock.family == socket.AF_INET6
        self._last: tuple[SocketAddress, bytes, Way] | None = None
        sock.setblocking(False)
        _tune(sock)
        self._segments = _supports(sock, _UDP_SEGMENT)
        with contextlib.suppress(OSError):
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def receive(self) -> Arrival | None:
        """The next datagrams of one sender; None where there are none just now.

        Raises OSError for what the network says of datagrams that were sent: ConnectionRefusedError,
        EMSGSIZE and others. It can be called again after it.
        """
        try:
            count, ancillary, flags, peer = self.sock.recvmsg_into(self._arrived, _ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return None
        size, local = count, b""
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                size = _INT.unpack_from(data)[0]
            elif (level, kind) in (
                (socket.IPPROTO_IP, _IP_PKTINFO),
                (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO),
            ):
                local = data
        if flags & socket.MSG_TRUNC:
            count = 0
        return Arrival(count, max(size, 1), self._way(peer, local))

    def send(self, start: int, end: int, size: int, way: Way) -> None:
        """Send what stands from `start` to `end` of `sealed`, as datagrams of `size` each but for the last.

        Raises BlockingIOError where there is no room for any of them, and another OSError: EMSGSIZE for what
        is too long.
        """
        ancillary = self._source(way)
        if end - start <= size:
            self.sock.sendmsg([self._sealed[start:end]], ancillary, 0, way.peer)
            return
        if self._segments:
            try:
                segment = (_SOL_UDP, _UDP_SEGMENT, _U16.pack(size))
                self.sock.sendmsg([self._sealed[start:end]], [*ancillary, segment], 0, way.peer)
            except OSError as error:
                # Said by an interface that cannot checksum, or where this kernel says so of what is too long.
                if error.errno not in (errno.EINVAL, errno.EIO, errno.EOPNOTSUPP):
                    raise
                self._segments = error.errno == errno.EINVAL
            else:
                return
        for begin in range(start, end, size):
            piece = self._sealed[begin : min(begin + size, end)]
            self.sock.sendmsg([piece], ancillary, 0, way.peer)

    def send_alone(self, data: bytes, way: Way) -> None:
        """Send one datagram, if there is room for it and a way: whatever else becomes of it is not known."""
        with contextlib.suppress(OSError):
            self.sock.sendmsg([data], self._source(way), 0, way.peer)

    def complaints(self) -> list[Complaint]:
        """Take what the network has said of datagrams from the queue: the loop wakes for it until then."""
        found = []
        for _ in range(_COMPLAINTS_MOST):
            try:
                _, ancillary, _, peer = self.sock.recvmsg(1, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except OSError:
                break
            for _, kind, data in ancillary:
                if kind in (_IP_RECVERR, _IPV6_RECVERR) and len(data) >= _EXTENDED.size:
                    number, origin = _EXTENDED.unpack_from(data)
                    if origin != _LOCAL:
                        found.append(Complaint(peer, number))
        return found

    def _way(self, peer: SocketAddress, data: bytes) -> Way:
        last = self._last
        if last is None or last[0] != peer or last[1] != data:
            # The interface's index is left out, but where an address means nothing without it.
            local = data[4:8] if len(data) == 12 else data[:16]
            if local.startswith(b"\xfe\x80"):
                local = data
            last = self._last = (peer, data, Way(peer, local))
        return last[2]

    def _source(self, way: Way) -> Ancillary:
        local = way.local
        if not local:
            return []
        if len(local) == 4:
            return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + local + bytes(4))]
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local.ljust(20, b"\0"))]


class Outbox:
    """Gathers sealed datagrams of one size to one peer, in `sealed`, and sends them in one call."""

    __slots__ = (
        "_begin",
        "_closed",
        "_count",
        "_fill",
        "_sealed",
        "_send",
        "_size",
        "_way",
        "blocked",
        "fault",
    )

    def __init__(self, udp: UdpSocket, buffers: DatagramScratch) -> None:
        self._send = udp.send
        self._sealed = buffers.sealed
        self._way: Way | None = None
        self._begin = self._fill = self._size = self._count = 0
        self._closed = False
        self.blocked = False
        """Whether the kernel has no room: nothing can be added until `flush` has returned True."""
        self.fault: tuple[Way, int, OSError] | None = None
        """To whom, of which size and why the last datagrams did not go; who looks at it sets it to None."""

    def place(self, way: Way) -> int:
        """Where in `sealed` the next datagram to this peer is to stand; to be asked while not `blocked`.

        Negative where that has come to be so by sending what is in the way.
        """
        if self._fill and (self._closed or way is not self._way) and not self.flush():
            return -1
        self._way = way
        return self._fill

    def add(self, length: int) -> None:
        """A datagram of this length stands at `place`."""
        if not self._fill:
            self._size = length
        elif length > self._size:
            self._split(length)
            return
        elif length < self._size:
            self._closed = True
        self._fill += length
        self._count += 1
        if self._fill + self._size > _BATCH_MOST or self._count >= _SEGMENTS_MOST:
            self._closed = True

    def add_run(self, end: int, size: int) -> None:
        """Datagrams of this size, but for the last, stand from `place`, which was 0, to `end`."""
        self._fill, self._size, self._closed = end, size, True

    def flush(self) -> bool:
        """Send what there is; False where it must wait."""
        way = self._way
        if not self._fill or way is None:
            return True
        most = max(min(_SEGMENTS_MOST, _BATCH_MOST // self._size), 1) * self._size
        while self._begin < self._fill:
            end = min(self._begin + most, self._fill)
            try:
                self._attempt(end, way)
            except (BlockingIOError, InterruptedError):
                self.blocked = True
                return False
            except OSError as error:
                self.fault = (way, self._size, error)
            self._begin = end
        self.blocked = self._closed = False
        self._begin = self._fill = self._count = 0
        return True

    def _attempt(self, end: int, way: Way) -> None:
        try:
            self._send(self._begin, end, self._size, way)
        except (BlockingIOError, InterruptedError):
            raise
        except OSError:
            # What the network has complained of, maybe for another peer, is said once: then nothing was sent.
            self._send(self._begin, end, self._size, way)

    def _split(self, length: int) -> None:
        """Send what is shorter than what was put behind it, which is then the first."""
        start, way = self._fill, self._way
        longer = bytes(self._sealed[start : start + length])
        if self.flush():
            self._sealed[:length] = longer
            self._way = way
            self._fill = self._size = length
            self._count = 1


def open_socket(family: int, address: SocketAddress, *, only_six: bool | None = None) -> socket.socket:
    """A bound UDP socket. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.IPPROTO_UDP)
    try:
        if only_six is not None and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_six)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def first_hop(way: Way) -> int:
    """The longest packet that this machine's interface on the way carries; 1500 where it is not known."""
    six = len(way.peer) > 2
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        # Before it is connected: what other connections have learned of the path is not asked for.
        sock.setsockopt(*_discover(six))
        sock.connect(way.peer)
        level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if six else (socket.IPPROTO_IP, _IP_MTU)
        return sock.getsockopt(level, option)
    return 1500


def _discover(six: bool) -> tuple[int, int, int]:
    if six:
        return socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE
    return socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE


def _tune(sock: socket.socket) -> None:
    six = sock.family == socket.AF_INET6
    sock.setsockopt(*_discover(six))
    if six:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        with contextlib.suppress(OSError):  # not where it takes IPv6 alone
            sock.setsockopt(*_discover(six=False))
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER)


def _supports(sock: socket.socket, option: int) -> bool:
    try:
        sock.getsockopt(_SOL_UDP, option)
    except OSError:
        return False
    return True
