"""The server name in a ClientHello, read before TLS begins, so that its service's own context can answer.

A context that is swapped in the middle of a handshake takes its certificate along, but not its versions,
groups and options; one that is chosen beforehand is in force from the first byte. What is read here decides
nothing but that choice: OpenSSL reads the same bytes again, and answers what is malformed.
"""

from __future__ import annotations

from culvert.tls.engine import CHUNK
from culvert.tls.presentation import Reader

LIMIT = CHUNK // 2
"""Most bytes that are kept of a ClientHello: those of today's clients have two kilobytes."""

_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_HEADER = 5
_RECORD_LIMIT = 2**14
_SERVER_NAME = 0
_HOST_NAME = 0

HOST_NAME_LIMIT = 255
"""Bytes of a host's name (RFC 1035, 2.3.4): a longer one is none, and is kept nowhere."""


class ClientHello:
    """Takes a client's first bytes, `feed` by `feed`, until `complete`; `data` is all that was taken."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.complete = False
        self._position = 0
        self._message = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes. What cannot become a ClientHello is complete at once, and has no name."""
        self.data += data
        while not self.complete:
            header = self.data[self._position : self._position + _HEADER]
            if header and header[0] != _HANDSHAKE_RECORD:
                self.complete = True
            if len(header) < _HEADER:
                break
            length = int.from_bytes(header[3:], "big")
            if header[1] != 3 or not 0 < length <= _RECORD_LIMIT:
                self.complete = True
                break
            end = self._position + _HEADER + length
            if len(self.data) < end:
                break
            self._message += self.data[self._position + _HEADER : end]
            self._position = end
            self._look()
        self.complete = self.complete or len(self.data) >= LIMIT

    @property
    def server_name(self) -> str | None:
        """The host that the client asks for (RFC 6066, 3), in lower case; None where it names none."""
        try:
            return _server_name(bytes(self._message))
        except (IndexError, ValueError):
            return None

    def _look(self) -> None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            self.complete = True
        elif len(message) >= 4:
            self.complete = len(message) >= 4 + int.from_bytes(message[1:4], "big")


def _server_name(message: bytes) -> str | None:
    """The name in a ClientHello (RFC 8446, 4.1.2). Raises ValueError for what is none."""
    reader = Reader(message)
    if reader.number(1) != _CLIENT_HELLO:
        raise ValueError("no ClientHello")
    hello = reader.vector(3)
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # ciphers
    hello.vector(1)  # compressions
    extensions = hello.vector(2)
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            return _host_name(content.vector(2))
    return None


def _host_name(names: Reader) -> str | None:
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            host = name.rest()
            return host.decode("ascii").lower() if len(host) <= HOST_NAME_LIMIT else None
    return None
