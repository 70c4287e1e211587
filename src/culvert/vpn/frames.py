"""Messages in a stream: three bytes in front of each, its kind and its length.

     0        1                 3
    +--------+-----------------+---------------------+--------------------- - -
    |  kind  | length (16 bit) | virtio header (10)  |  length bytes
    +--------+-----------------+---------------------+--------------------- - -
                                 OFFLOADED alone

The length counts the body alone, without the virtio header: so 16 bits are enough for the longest packet.
Two kinds are of streams alone, and stand for a PACKET: those of `vpn.brief`. Their length has 12 bits, and
the 4 in front say where the header is kept that they go without.
A stream of whole messages is cut in place, without a copy; only what is left of one that is not complete yet
is kept. Nothing of a length that no message may have is ever waited for.
"""

from __future__ import annotations

from collections.abc import Iterator

from culvert.vpn import brief
from culvert.vpn.transport import MESSAGE_LIMIT, VIRTIO, FrameError, Kind

HEADER = 3
"""Bytes in front of each message."""

LONGEST = HEADER + VIRTIO + 65535
"""Bytes of the longest message with its header."""

BRIEF = {4: 20, 6: 22}
"""The kinds of a small packet of IPv4 and of IPv6 without what its header has in common with the last."""

BRIEF_PLACE = 12
"""Bits of the length of a brief packet: what is above is the place."""

_PACKET, _OFFLOADED = Kind.PACKET, Kind.OFFLOADED
"""An enumeration's member costs a call in Python 3.11 wherever it is named."""

_VERSIONS = {kind: version for version, kind in BRIEF.items()}
_KINDS = {int(kind): kind for kind in Kind} | dict.fromkeys(_VERSIONS, Kind.PACKET)
_BRIEF_LENGTH = (1 << BRIEF_PLACE) - 1
_LIMITS: dict[int, int] = {
    **dict.fromkeys((Kind.HELLO, Kind.BYE), MESSAGE_LIMIT),
    **dict.fromkeys((Kind.PING, Kind.PONG), 64),
    **dict.fromkeys((Kind.PACKET, Kind.OFFLOADED), 65535),
    **dict.fromkeys(_VERSIONS, brief.LIMIT),
}
_EXTRA = {number: VIRTIO if kind is Kind.OFFLOADED else 0 for number, kind in _KINDS.items()}

Message = tuple[Kind, memoryview]
"""A message: its kind, and its body with the virtio header that it may begin with."""


def message(kind: Kind, body: bytes) -> bytes:
    """A whole message that is no OFFLOADED packet. Raises ValueError for a body that is too long."""
    if len(body) > _LIMITS[kind]:
        raise ValueError(f"{kind.name} with {len(body)} bytes: {_LIMITS[kind]} at most")
    return bytes((kind, len(body) >> 8, len(body) & 0xFF)) + body


class Cutter:
    """Cuts what a stream brings into messages."""

    __slots__ = ("_headers", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._headers = brief.Headers()

    @property
    def kept(self) -> int:
        """How many bytes of a message that is not complete are kept."""
        return len(self._rest)

    def alone(self, data: memoryview) -> memoryview | None:
        """The packet that `data` is, if it is one brief message alone; None where it is for `feed`.

        A shorter way for what most small reads are. Raises FrameError, as `feed` does.
        """
        size = len(data) - HEADER
        if self._rest or not 0 <= size <= brief.LIMIT:
            return None
        version, length = _VERSIONS.get(data[0]), data[1] << 8 | data[2]
        if version is None or length & _BRIEF_LENGTH != size:
            return None
        return memoryview(self._headers.restore(version, length >> BRIEF_PLACE, data[HEADER:]))

    def feed(self, data: memoryview) -> Iterator[Message]:
        """The messages that are complete with `data`, valid until the next step. To be run to its end.

        A packet is a view of `data`, which must stay as it is for as long as packets alone are given; the
        body of any other message is a copy, and so is all that stands behind the first such.

        Raises FrameError for what is no message; nothing can be fed after that.
        """
        own = bool(self._rest)
        if own:
            self._rest += data
            data = memoryview(self._rest)
        position, size = 0, len(data)
        while size - position >= HEADER:
            number = data[position]
            kind = _KINDS.get(number)
            if kind is None:
                raise FrameError(f"a message of the unknown kind {number}")
            length = data[position + 1] << 8 | data[position + 2]
            place = 0
            if number in _VERSIONS:
                place, length = length >> BRIEF_PLACE, length & _BRIEF_LENGTH
            if length > _LIMITS[number]:
                raise FrameError(f"a {kind.name} of {length} bytes, {_LIMITS[number]} at most")
            start = position + HEADER
            end = start + length + _EXTRA[number]
            if end > size:
                break
            position = end
            body = data[start:end]
            if kind < _PACKET:  # rare; what is said in answer to it may overwrite the buffer
                body = memoryview(bytes(body))
                if not own:
                    own, data = True, memoryview(bytes(data[end:]))
                    position, size = 0, len(data)
            elif number in _VERSIONS:
                body = memoryview(self._headers.restore(_VERSIONS[number], place, body))
            elif kind is _PACKET and 20 <= length <= brief.LIMIT:
                self._headers.place(body, 0, length)
            yield kind, body
        if self._rest or position < size:
            self._rest = bytearray(data[position:])
