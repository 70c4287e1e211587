"""Small packets without what their headers have in common with those before them.

A ping through a tunnel over TLS is 84 bytes with as many of overhead; 20 and more of its own are the same in
each packet. A stream is reliable and in order, so both ends can keep the last header that went each way, and
a small packet names the bytes in which its own differs:

    +-----------------+---------------- - -+------------------- - -
    | mask (4 or 6)   | bytes that differ  | what is behind the span
    +-----------------+---------------- - -+------------------- - -

The span is the IP header with the 8 bytes behind it, 28 or 48 bytes; the mask has a bit for each of them, the
first one's the highest. Payload is never compared: how well it goes with what somebody else has sent would
show in the length (the attacks on compression in front of encryption). Large packets do not take part.
"""

from __future__ import annotations

from culvert.vpn.transport import FrameError

LIMIT = 512
"""Longest packet that takes part, in bytes: in a longer one the header is little."""

SPANS = {4: 28, 6: 48}
_MASKS = {4: 4, 6: 6}


class Headers:
    """The last header that went one way, for each version of IP: one at each end, and they agree."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = {version: bytes(span) for version, span in SPANS.items()}

    def shorten(self, version: int, header: bytes) -> bytes | None:
        """What goes in place of a packet's first `SPANS[version]` bytes; None where it would not be less."""
        mask = 0
        changed = bytearray()
        for old, new in zip(self._last[version], header, strict=True):
            mask <<= 1
            if old != new:
                mask |= 1
                changed.append(new)
        size = _MASKS[version]
        if size + len(changed) >= len(header):
            return None
        self._last[version] = header
        return mask.to_bytes(size, "big") + changed

    def restore(self, version: int, body: bytes) -> bytes:
        """The whole packet of which this came. Raises FrameError."""
        size, span = _MASKS[version], SPANS[version]
        mask = int.from_bytes(body[:size], "big")
        if len(body) < size or mask >> span or len(body) < size + mask.bit_count():
            raise FrameError(f"a brief packet of {len(body)} bytes with the mask {mask:#x}")
        header = bytearray(self._last[version])
        position = size
        for index in range(span):
            if mask >> (span - 1 - index) & 1:
                header[index] = body[position]
                position += 1
        self._last[version] = bytes(header)
        return self._last[version] + body[position:]
