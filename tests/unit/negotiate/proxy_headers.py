"""PROXY headers as other implementations send them, and ways to read one."""

from __future__ import annotations

from culvert.negotiate.proxy_header import HeaderReader
from culvert.negotiate.script import Ends

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

CLIENT_4 = Ends(("192.0.2.7", 50000), ("198.51.100.1", 443))
CLIENT_6 = Ends(("2001:db8::7", 50000, 0, 0), ("2001:db8::1", 443, 0, 0))

LINE_4 = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"
LINE_6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n"

ADDRESSES_4 = bytes.fromhex("c0000207 c6336401 c350 01bb")
ADDRESSES_6 = bytes.fromhex(
    "20010db8000000000000000000000007 20010db8000000000000000000000001 c350 01bb".replace(" ", "")
)


def binary(command: int, family: int, body: bytes, version: int = 2) -> bytes:
    """A header of version 2 of any content."""
    return SIGNATURE + bytes((version << 4 | command, family)) + len(body).to_bytes(2, "big") + body


def read(*pieces: bytes) -> tuple[HeaderReader, bytes]:
    """A reader fed with these pieces, as a stream that is looked into is; and what it left."""
    reader = HeaderReader()
    waiting = b""
    for piece in pieces:
        waiting += piece
        while waiting and not reader.complete:
            taken = reader.feed(waiting[: reader.wanted])
            waiting = waiting[taken:]
    return reader, waiting
