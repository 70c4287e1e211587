"""Joins the segments of one flow that come one behind the other, so that the kernel gets them as one packet.

Each record is opened right behind the payload of the one before it, so far back that its header falls upon
the end of that payload. Fits the header, then what it covered is put back, and the payload stands where it
belongs without having been moved. Only what goes on with the run byte for byte is joined; so what the kernel
gets can be cut again into what the sender has sent.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

from culvert.vpn.datagram.cutting import CHECKSUM_AT, TCP, UDP, finish_ip, pseudo_sum
from culvert.vpn.datagram.records import PACKETS, RecordError, Sort
from culvert.vpn.transport import PACKET_LIMIT, VIRTIO

Deliver = Callable[[memoryview, bool], None]
"""Takes a packet; with True, one with its virtio header."""

Unseal = Callable[[int, int, int], int]

PLACE = VIRTIO - 1
"""Where the first record is opened: the virtio header then takes the place of its kind."""

_VIRTIO = struct.Struct("<BBHHHH")
_NEEDS_CHECKSUM = 1
_SINGLE, _TCP4, _TCP6 = 0, 1, 4
_FIN, _PSH, _ACK = 0x01, 0x08, 0x10
_LEAST_SEGMENT = 48
"""Bytes: shorter ones are not joined, so that nothing is made that cannot be cut again."""

_PARTIAL = int(Sort.PARTIAL)  # once: a member costs a call in Python 3.11 wherever it is named
_u16 = struct.Struct(">H")
_u32 = struct.Struct(">I")


class Joiner:
    """Makes packets of the records of one association. `flush` before another one uses the buffer."""

    __slots__ = (
        "_buffer", "_checksum", "_count", "_deliver", "_end", "_expected", "_flags", "_header", "_mask",
        "_saved", "_segment", "_sequence", "_view", "place",
    )  # fmt: skip

    def __init__(self, buffer: bytearray, deliver: Deliver) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._deliver = deliver
        self.place = PLACE
        """Where the next record is to be opened."""
        self._count = 0
        self._header = self._checksum = self._segment = self._sequence = self._end = self._flags = 0
        self._mask = self._expected = 0
        self._saved = bytearray()

    def deliver_to(self, deliver: Deliver) -> None:
        """Hand packets to this one from now on."""
        self._deliver = deliver

    def take(self, length: int) -> bytes | None:
        """Go on with the record of `length` bytes at `place`; gives it back if it is no packet.

        Raises RecordError for one that is to be dropped.
        """
        if not self._count:
            return self._first(length)
        if self._joins(length):
            return None
        at = self.place
        record = bytes(self._buffer[at : at + length])
        self.flush()
        self._buffer[PLACE : PLACE + length] = record
        return self._first(length)

    @property
    def running(self) -> bool:
        """Whether others may follow what came last."""
        return self._count > 0

    def go_on(self, unseal: Unseal, arrived: bytearray, begin: int, end: int, size: int) -> tuple[int, int]:
        """Open the datagrams of `size` bytes that stand in `arrived` from `begin` on, while they go on the
        run as whole segments; to be called while one is `running`.

        Returns where that ended, and what `unseal` has said of a last one that is not joined yet, at `place`:
        it is for `take`. -1 where there is none. `unseal` is as `DatagramEngine.unseal`.
        """
        buffer, header, segment = self._buffer, self._header, self._segment
        place, stop, saved, count = self.place, self._end, self._saved, self._count
        whole, limit = 1 + header + segment, VIRTIO + PACKET_LIMIT - segment
        # The header as a number: from one segment to the next the sequence number grows, and nothing else.
        shift = 8 * (header - self._checksum - 8)
        step, rest = segment << shift, (1 << 32) - self._sequence
        expected = bytes((_PARTIAL,)) + buffer[VIRTIO : VIRTIO + header]
        number = int.from_bytes(expected, "big")
        number += (self._sequence - _u32.unpack_from(expected, self._checksum + 5)[0]) << shift
        most, from_bytes, opened = min((rest - 1) // segment, (limit - stop) // segment), int.from_bytes, -1
        while begin + size <= end and most > 0:
            opened = unseal(begin, size, place)
            begin += size
            if opened != whole or from_bytes(buffer[place : place + 1 + header], "big") != number:
                break
            buffer[place:stop] = saved
            place, stop = place + segment, stop + segment
            saved = buffer[place:stop]
            number += step
            most -= 1
            opened = -1
        joined = (stop - self._end) // segment
        self.place, self._end, self._saved, self._count = place, stop, saved, count + joined
        self._sequence = (self._sequence + joined * segment) & 0xFFFFFFFF
        return begin, opened

    def flush(self) -> None:
        """Deliver what was joined."""
        count, self._count = self._count, 0
        if not count:
            return
        self._buffer[self.place : self._end] = self._saved
        self.place = PLACE
        kind, segment = _SINGLE, 0
        if count > 1:
            kind, segment = (_TCP4 if self._buffer[VIRTIO] >> 4 == 4 else _TCP6), self._segment
            self._complete_header()
        offset = CHECKSUM_AT[TCP]
        header = self._header if kind else 0
        _VIRTIO.pack_into(self._buffer, 0, _NEEDS_CHECKSUM, kind, header, segment, self._checksum, offset)
        self._deliver(self._view[: self._end], True)

    def _first(self, length: int) -> bytes | None:
        buffer = self._buffer
        first = buffer[PLACE]
        if first in PACKETS:
            self._deliver(self._view[PLACE : PLACE + length], False)
            return None
        if first != _PARTIAL:
            return bytes(buffer[PLACE : PLACE + length])
        if length < 1 + 28:
            raise RecordError(f"a packet of {length - 1} bytes")
        if buffer[VIRTIO] >> 4 == 4:
            checksum, protocol = (buffer[VIRTIO] & 15) * 4, buffer[VIRTIO + 9]
        else:
            checksum, protocol = 40, buffer[VIRTIO + 6]
        if protocol not in (TCP, UDP) or checksum + CHECKSUM_AT[protocol] + 2 > length - 1:
            raise RecordError(f"a checksum of protocol {protocol} is to be completed")
        if protocol == TCP and self._begin(checksum, length - 1):
            return None
        _VIRTIO.pack_into(buffer, 0, _NEEDS_CHECKSUM, _SINGLE, 0, 0, checksum, CHECKSUM_AT[protocol])
        self._deliver(self._view[: PLACE + length], True)
        return None

    def _begin(self, checksum: int, size: int) -> bool:
        """Begin a run with this packet, if others can follow it."""
        buffer = self._buffer
        if checksum < 20 or checksum + 20 > size:
            return False
        header = checksum + (buffer[VIRTIO + checksum + 12] >> 4) * 4
        version = buffer[VIRTIO] >> 4
        # With any other flag, or as a fragment, it stands alone.
        if (
            buffer[VIRTIO + checksum + 13] != _ACK
            or header < checksum + 20
            or size - header < _LEAST_SEGMENT
            or (version == 4 and (buffer[VIRTIO + 6] & 0x3F or buffer[VIRTIO + 7]))
        ):
            return False
        self._checksum, self._header, self._segment = checksum, header, size - header
        self._mask = _mask(version, checksum, header)
        self._expected = int.from_bytes(buffer[VIRTIO : VIRTIO + header], "big") & self._mask
        self._sequence = _u32.unpack_from(buffer, VIRTIO + checksum + 4)[0]
        self._flags = _ACK
        self._count = 1
        self._advance(VIRTIO + header, size - header)
        return True

    def _joins(self, length: int) -> bool:
        buffer, at, header = self._buffer, self.place, self._header
        payload = length - 1 - header
        if (
            not 0 < payload <= self._segment
            or buffer[at] != _PARTIAL
            or int.from_bytes(buffer[at + 1 : at + 1 + header], "big") & self._mask != self._expected
            or _u32.unpack_from(buffer, at + 5 + self._checksum)[0] != self._sequence
            or self._end + payload > VIRTIO + PACKET_LIMIT
        ):
            return False
        self._flags = buffer[at + 14 + self._checksum]
        buffer[at : self._end] = self._saved
        self._count += 1
        self._advance(self._end, payload)
        if payload < self._segment or self._flags != _ACK:
            self.flush()
        return True

    def _advance(self, start: int, payload: int) -> None:
        self._end = start + payload
        self._sequence = (self._sequence + payload) & 0xFFFFFFFF
        self.place = self._end - self._header - 1
        self._saved = self._buffer[self.place : self._end]

    def _complete_header(self) -> None:
        """Make the first segment's header that of them all."""
        buffer, checksum = self._buffer, self._checksum
        header = buffer[VIRTIO : VIRTIO + self._header]
        finish_ip(header, self._end - VIRTIO)
        header[checksum + 13] = self._flags
        total = pseudo_sum(header, TCP, self._end - VIRTIO - checksum)
        _u16.pack_into(header, checksum + CHECKSUM_AT[TCP], total)
        buffer[VIRTIO : VIRTIO + self._header] = header


@functools.lru_cache(maxsize=64)
def _mask(version: int, checksum: int, header: int) -> int:
    """Which bits of a header are the same in all segments of a run."""
    kept = bytearray(b"\xff" * header)
    differing = [(checksum + 4, 4), (checksum + 16, 2)]
    differing += [(2, 2), (4, 2), (10, 2)] if version == 4 else [(4, 2)]
    for at, size in differing:
        kept[at : at + size] = bytes(size)
    kept[checksum + 13] = 0xFF & ~(_FIN | _PSH)
    return int.from_bytes(kept, "big")
