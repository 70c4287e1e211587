"""What a peer's packet must be before the kernel gets it: an IP packet, with a virtio header that fits it.

The header (virtio 1.2, 5.1.6) says where a checksum is to be completed and how the packet is to be cut into
segments. The kernel would check most of it, but not all on every version, and a segment size of one byte
would make 64,000 packets of one.
"""

from __future__ import annotations

import struct

from culvert.vpn.transport import VIRTIO

NO_HEADER = bytes(VIRTIO)
"""The virtio header of a packet that is complete as it is."""

SMALLEST_TCP_SEGMENT = 48
"""Bytes of payload: what Linux itself sends at least (tcp_min_snd_mss)."""

MOST_UDP_SEGMENTS = 128
"""As many as Linux cuts one packet into (UDP_MAX_SEGMENTS)."""

_HEADER = struct.Struct("<BBHHHH")
_NEEDS_CHECKSUM = 1
_DATA_VALID = 2
_ECN = 0x80
_TCP4, _TCP6, _UDP = 1, 4, 5
_PROTOCOL = {_TCP4: 6, _TCP6: 6, _UDP: 17}
_FRAGMENT = 44
"""The header of a fragment of IPv6 (RFC 8200, 4.5)."""

_SYN, _RST = 0x02, 0x04


class PacketError(ValueError):
    """A packet that must not reach the kernel: it is dropped."""


def inspect(frame: memoryview, offloaded: bool) -> bytes:
    """The source and the destination, one behind the other, of a packet that a peer has sent. Raises
    PacketError.

    With `offloaded`, the frame begins with a virtio header, which is held against the packet.
    """
    start = VIRTIO if offloaded else 0
    size = len(frame) - start
    if size < 20:
        raise PacketError(f"an IP packet of {size} bytes")
    version = frame[start] >> 4
    if version == 4:
        transport = (frame[start] & 15) * 4
        stated = frame[start + 2] << 8 | frame[start + 3]
        if not 20 <= transport <= stated or stated != size:
            raise PacketError(f"an IPv4 packet of {size} bytes that states {stated}")
        ends = bytes(frame[start + 12 : start + 20])
        protocol = frame[start + 9]
    elif version == 6:
        transport = 40
        stated = transport + (frame[start + 4] << 8 | frame[start + 5]) if size >= transport else 0
        if stated != size:
            raise PacketError(f"an IPv6 packet of {size} bytes that states {stated}")
        ends = bytes(frame[start + 8 : start + 40])
        protocol = frame[start + 6]
    else:
        raise PacketError(f"a packet of IP version {version}")
    if offloaded:
        _check_header(frame, version, transport, protocol)
    return ends


def _check_header(frame: memoryview, version: int, transport: int, protocol: int) -> None:
    """Hold a virtio header against the packet behind it. Raises PacketError."""
    flags, kind, header, segment, checksum, offset = _HEADER.unpack_from(frame)
    size = len(frame) - VIRTIO
    if flags & ~(_NEEDS_CHECKSUM | _DATA_VALID) or header > size:
        raise PacketError(f"a virtio header with the flags {flags:#x} and a header of {header} bytes")
    if flags & _NEEDS_CHECKSUM and (checksum < transport or checksum + offset + 2 > size):
        raise PacketError(f"a checksum at {checksum}+{offset} of {size} bytes")
    kind &= ~_ECN
    if kind == 0:
        return
    if _PROTOCOL.get(kind) is None or not flags & _NEEDS_CHECKSUM or (kind == _TCP4) > (version == 4):
        raise PacketError(f"segmentation of the kind {kind}")
    if (kind == _TCP6) > (version == 6) or (version == 4 and protocol != _PROTOCOL[kind]):
        raise PacketError(f"segmentation of the kind {kind} for IPv{version} with protocol {protocol}")
    if (version == 4 or protocol == _PROTOCOL[kind]) and checksum != transport:
        raise PacketError(f"a checksum from {checksum} on, where the IP header ends at {transport}")
    if frame[VIRTIO + 6] & 0x3F or frame[VIRTIO + 7] if version == 4 else protocol == _FRAGMENT:
        raise PacketError(f"segmentation of a fragment of IPv{version}")
    if kind == _UDP:
        _check_udp(size - checksum - 8, segment, offset)
    else:
        _check_tcp(frame[VIRTIO + checksum :], segment, offset)


def _check_udp(payload: int, segment: int, offset: int) -> None:
    if offset != 6 or payload < 0 or segment * MOST_UDP_SEGMENTS < max(payload, 1):
        raise PacketError(f"UDP segments of {segment} bytes for {payload}")


def _check_tcp(header: memoryview, segment: int, offset: int) -> None:
    if len(header) < 20 or segment < SMALLEST_TCP_SEGMENT or offset != 16:
        raise PacketError(f"TCP segments of {segment} bytes")
    if header[13] & (_SYN | _RST):
        raise PacketError(f"TCP segments with the flags {header[13]:#x}")
    length = (header[12] >> 4) * 4
    if not 20 <= length <= len(header):
        raise PacketError(f"a TCP header of {length} bytes")


def is_whole(header: memoryview | bytes) -> bool:
    """Whether the packet behind this virtio header is complete as it is: the header need not go along."""
    return not header[0] & _NEEDS_CHECKSUM and header[1] == 0
