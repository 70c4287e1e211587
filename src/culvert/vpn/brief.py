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

from itertools import compress

from culvert.vpn.transport import FrameError

LIMIT = 512
"""Longest packet that takes part, in bytes: in a longer one the header is little."""

SPANS = {4: 28, 6: 48}
_MASKS = {4: 4, 6: 6}


_MARKS = b"0" + b"1" * 255
"""Makes a digit of each byte: 1 of all that are not zero."""


class Headers:
    """The last header that went one way, for each version of IP: one at each end, and they agree."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = {version: bytes(span) for version, span in SPANS.items()}

    def shorten(self, version: int, header: bytes) -> bytes | None:
        """What goes in place of a packet's first `SPANS[version]` bytes; None where it would not be less."""
        size, span, last = _MASKS[version], len(header), self._last[version]
        # Calls that go through all bytes by themselves: a loop would cost a tenth of a ping.
        differing = (int.from_bytes(header, "big") ^ int.from_bytes(last, "big")).to_bytes(span, "big")
        changed = bytes(compress(header, differing))
        if size + len(changed) >= span:
            return None
        self._last[version] = header
        return int(differing.translate(_MARKS), 2).to_bytes(size, "big") + changed

    def restore(self, version: int, body: bytes) -> bytes:
        """The whole packet of which this came. Raises FrameError."""
        size, span = _MASKS[version], SPANS[version]
        mask = int.from_bytes(body[:size], "big")
        end = size + mask.bit_count()
        if mask >> span or len(body) < end:
            raise FrameError(f"a brief packet of {len(body)} bytes with the mask {mask:#x}")
        header = bytearray(self._last[version])
        position = end
        while mask:
            lowest = mask & -mask
            position -= 1
            header[span - lowest.bit_length()] = body[position]
            mask ^= lowest
        self._last[version] = bytes(header)
        return self._last[version] + body[end:]
