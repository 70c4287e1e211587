"""A capture of traced connections for Wireshark: pcapng with the secrets that decrypt it.

The bytes are those that crossed the network; the IP and TCP headers around them are made up, with the
addresses, sequence numbers and checksums that they could have had (draft-ietf-opsawg-pcapng, 4).
"""

from __future__ import annotations

import array
import ipaddress
import itertools
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from culvert.trace.dissection import CONNECTIONS_LIMIT
from culvert.trace.events import Closed, Direction, Endpoint, Opened, Secret, TraceEvent, Wire
from culvert.version import __version__

_SECTION_HEADER, _INTERFACE, _PACKET, _SECRETS = 0x0A0D0D0A, 1, 6, 10
_BYTE_ORDER = 0x1A2B3C4D
_RAW_IP = 101
"""LINKTYPE_RAW: packets begin with their IP header."""

_TLS_KEY_LOG = 0x544C534B
_USER_APPLICATION = 4
_FIN, _SYN, _PUSH, _ACK = 1, 2, 8, 16
_WINDOW = 65535
_TCP = 6
_SEGMENT = 32 * 1024
"""Bytes of a segment: an IP packet has less than 64 kB."""

_FIRST_MADE_UP_PORT = 20000

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(slots=True)
class _Flow:
    """One connection as TCP would have carried it."""

    ends: dict[Direction, tuple[_Address, int]]
    """Who sends in each direction."""
    base: float
    """What to add to a time to have the time of day, in seconds since 1970."""
    sent: dict[Direction, int] = field(
        default_factory=lambda: {Direction.TO_SERVER: 0, Direction.TO_CLIENT: 0}
    )
    """The sequence number that comes next."""


class CaptureWriter:
    """Makes the file's bytes: `start`, then what `write` gives for each event."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._ports = itertools.cycle(range(_FIRST_MADE_UP_PORT, 65536))

    def start(self) -> bytes:
        """The head of the file."""
        name = f"culvert {__version__}".encode()
        option = struct.pack("=HH", _USER_APPLICATION, len(name)) + _padded(name) + bytes(4)
        section = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1) + option
        interface = struct.pack("=HHI", _RAW_IP, 0, 0)
        return _block(_SECTION_HEADER, section) + _block(_INTERFACE, interface)

    def write(self, event: TraceEvent) -> bytes:
        """What an event adds to the file; nothing for most."""
        match event:
            case Secret():
                line = event.line.encode("ascii", "replace") + b"\n"
                return _block(_SECRETS, struct.pack("=II", _TLS_KEY_LOG, len(line)) + _padded(line))
            case Opened():
                return b"".join(self._open(event))
            case Wire() if event.connection in self._flows:
                return b"".join(self._carry(self._flows[event.connection], event))
            case Closed() if event.connection in self._flows:
                return b"".join(self._close(self._flows.pop(event.connection), event.time))
        return b""

    def _open(self, event: Opened) -> Iterator[bytes]:
        if len(self._flows) >= CONNECTIONS_LIMIT:
            del self._flows[next(iter(self._flows))]
        flow = self._flows[event.connection] = _Flow(self._ends(event), event.wall - event.time)
        yield _packet(flow, Direction.TO_SERVER, event.time, _SYN)
        yield _packet(flow, Direction.TO_CLIENT, event.time, _SYN | _ACK)
        yield _packet(flow, Direction.TO_SERVER, event.time, _ACK)

    def _carry(self, flow: _Flow, event: Wire) -> Iterator[bytes]:
        # Behind the SYN, and behind what was lost of the trace.
        flow.sent[event.direction] = 1 + event.offset
        for start in range(0, len(event.data), _SEGMENT):
            segment = event.data[start : start + _SEGMENT]
            yield _packet(flow, event.direction, event.time, _PUSH | _ACK, segment)

    def _close(self, flow: _Flow, now: float) -> Iterator[bytes]:
        yield _packet(flow, Direction.TO_SERVER, now, _FIN | _ACK)
        yield _packet(flow, Direction.TO_CLIENT, now, _FIN | _ACK)
        yield _packet(flow, Direction.TO_SERVER, now, _ACK)

    def _ends(self, event: Opened) -> dict[Direction, tuple[_Address, int]]:
        client, server = _address(event.client), _address(event.server)
        if 6 in (version for version in (_version(client), _version(server)) if version):
            client, server = _widened(client), _widened(server)
        return {
            Direction.TO_SERVER: self._end(client, event.client[1]),
            Direction.TO_CLIENT: self._end(server, event.server[1]),
        }

    def _end(self, address: _Address | None, port: int) -> tuple[_Address, int]:
        """One end; a Unix socket or a program gets a port of its own on loopback."""
        if address is None:
            return ipaddress.IPv4Address("127.0.0.1"), next(self._ports)
        return address, port or next(self._ports)


def _address(endpoint: Endpoint) -> _Address | None:
    try:
        return ipaddress.ip_address(endpoint[0])
    except ValueError:
        return None


def _version(address: _Address | None) -> int | None:
    return None if address is None else address.version


def _widened(address: _Address | None) -> _Address:
    """An address for a packet of IPv6."""
    if address is None:
        return ipaddress.IPv6Address("::1")
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    return address


def _packet(flow: _Flow, direction: Direction, now: float, flags: int, data: bytes = b"") -> bytes:
    """A TCP segment in its IP packet in its block; counts what it carries as sent."""
    (source, source_port), (target, target_port) = flow.ends[direction], flow.ends[direction.reverse]
    acknowledged = flow.sent[direction.reverse] & 0xFFFFFFFF if flags & _ACK else 0
    sequence = flow.sent[direction] & 0xFFFFFFFF
    flow.sent[direction] += len(data) + bool(flags & (_SYN | _FIN))

    def header(checksum: int) -> bytes:
        return struct.pack(
            "!HHIIBBHHH",
            source_port,
            target_port,
            sequence,
            acknowledged,
            5 << 4,
            flags,
            _WINDOW,
            checksum,
            0,
        )

    length = 20 + len(data)
    # Of the addresses, the protocol and the length too (RFC 9293, 3.1; RFC 8200, 8.1).
    pseudo = source.packed + target.packed + struct.pack("!II", length, _TCP)
    segment = header(_checksum(pseudo + header(0) + data)) + data
    micros = max(0, int((now + flow.base) * 1_000_000))
    packet = _ip_header(source, target, length) + segment
    size = len(packet)
    block = struct.pack("=IIIII", 0, micros >> 32, micros & 0xFFFFFFFF, size, size)
    return _block(_PACKET, block + _padded(packet))


def _ip_header(source: _Address, target: _Address, length: int) -> bytes:
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, _TCP, 64) + source.packed + target.packed

    def header(checksum: int) -> bytes:
        fixed = struct.pack("!BBHHHBBH", 4 << 4 | 5, 0, 20 + length, 0, 0x4000, 64, _TCP, checksum)
        return fixed + source.packed + target.packed

    return header(_checksum(header(0)))


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    words = array.array("H", data if len(data) % 2 == 0 else data + b"\0")
    if sys.byteorder == "little":
        words.byteswap()
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("=I", 12 + len(body))
    return struct.pack("=I", kind) + length + body + length
