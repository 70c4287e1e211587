"""IP packets as a tunnel interface gives them, and what a kernel would make of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from culvert.vpn.transport import HEADROOM

NEEDS_CHECKSUM = 1
TCP4, TCP6, UDP_L4 = 1, 4, 5
TCP, UDP = 6, 17


def words(data: bytes) -> int:
    """The sum in ones' complement, word by word."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(packet: bytes, protocol: int, length: int) -> bytes:
    ends = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return ends + struct.pack(">HH", protocol, length)


@dataclass(frozen=True)
class Flow:
    """Where a packet comes from and goes to."""

    version: int = 4
    dont_fragment: bool = True
    options: bytes = b""
    flags: int = 0x10
    sequence: int = 1000
    acknowledged: int = 7
    port: int = 4000

    def tcp(self, payload: bytes) -> bytes:
        """A packet of TCP with the checksum of its pseudo header alone."""
        head = struct.pack(
            ">HHIIBBHHH",
            self.port,
            80,
            self.sequence % 2**32,
            self.acknowledged,
            (20 + len(self.options)) // 4 << 4,
            self.flags,
            500,
            0,
            0,
        )
        return self._packet(TCP, head + self.options + payload, 16)

    def udp(self, payload: bytes) -> bytes:
        head = struct.pack(">HHHH", self.port, 53, 8 + len(payload), 0)
        return self._packet(UDP, head + payload, 6)

    def _packet(self, protocol: int, content: bytes, checksum: int) -> bytes:
        if self.version == 4:
            fragment = 0x4000 if self.dont_fragment else 0
            ends = bytes((10, 0, 0, 1, 10, 0, 0, 2))
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(content), 77, fragment, 64, protocol, 0) + ends
            ip = ip[:10] + struct.pack(">H", ~words(ip) & 0xFFFF) + ip[12:]
        else:
            ends = bytes(15) + b"\1" + bytes(15) + b"\2"
            ip = struct.pack(">IHBB", 6 << 28, len(content), protocol, 64) + ends
        total = words(pseudo(ip, protocol, len(content)))
        return ip + content[:checksum] + struct.pack(">H", total) + content[checksum + 2 :]


def ip_header(packet: bytes) -> int:
    return 20 if packet[0] >> 4 == 4 else 40


def protocol_of(packet: bytes) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def virtio(packet: bytes, kind: int = 0, segment: int = 0) -> bytes:
    """The virtio header of a packet whose checksum is to be completed."""
    offset = 16 if protocol_of(packet) == TCP else 6
    return struct.pack("<BBHHHH", NEEDS_CHECKSUM, kind, 0, segment, ip_header(packet), offset)


def framed(packet: bytes, header: bytes) -> bytearray:
    """A buffer in which the packet stands at HEADROOM, as an interface has written it."""
    return bytearray(HEADROOM - len(header)) + header + packet


def completed(packet: bytes) -> bytes:
    """The packet as it would go out of the machine. It must have the right sum of the pseudo header."""
    at = ip_header(packet)
    protocol = protocol_of(packet)
    field = at + (16 if protocol == TCP else 6)
    content = packet[at:]
    assert packet[field : field + 2] == struct.pack(">H", words(pseudo(packet, protocol, len(content))))
    bare = packet[:field] + bytes(2) + packet[field + 2 :]
    total = words(pseudo(packet, protocol, len(content)) + bare[at:])
    return packet[:field] + struct.pack(">H", ~total & 0xFFFF or 0xFFFF) + packet[field + 2 :]


def check(packet: bytes) -> None:
    """Hold that a complete packet is right in its lengths and checksums."""
    at = ip_header(packet)
    stated = struct.unpack_from(">H", packet, 2 if at == 20 else 4)[0] + (0 if at == 20 else 40)
    assert stated == len(packet)
    assert at == 40 or words(packet[:20]) == 0xFFFF
    assert words(pseudo(packet, protocol_of(packet), len(packet) - at) + packet[at:]) == 0xFFFF
