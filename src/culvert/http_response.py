"""One HTTP/1.1 response as bytes in and a body out (RFC 9112): no socket, no clock."""

from __future__ import annotations

import re

from culvert.errors import CulvertError

HEAD_LIMIT = 16 * 1024
"""Most bytes in front of the body, interim responses included; and of what follows a chunked body."""

_CHUNK_LINE_LIMIT = 256
"""Longest line in front of a chunk: a size, and extensions that nobody uses."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")


class HttpError(CulvertError):
    """What came is no response that can be used."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ResponseReader:
    """Reads one response. `feed` it until it says that it is complete, then take `body`.

    Where not `any_status` will do it must be 200; `status` is 0 until it is known.
    """

    def __init__(self, body_limit: int, *, any_status: bool = False) -> None:
        self._limit = body_limit
        self._any_status = any_status
        self.status = 0
        self._buffer = bytearray()
        self._head_bytes = 0
        self._body = bytearray()
        self._length: int | None = None
        """What is left of the body, or of the chunk; None before it is known, and up to the end."""
        self._chunked = False
        self._in_body = False
        self._in_trailer = False
        self._complete = False

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    def feed(self, data: bytes) -> bool:
        """Take what the server sent next; whether the response is complete. Raises HttpError."""
        self._buffer += data
        while not self._complete and self._step():
            pass
        return self._complete

    def end(self) -> None:
        """The server sends nothing more. Raises HttpError if that came too early."""
        if self._complete:
            return
        if not self._in_body or self._chunked or self._length is not None:
            raise HttpError("the response is cut short")
        self._complete = True

    def _step(self) -> bool:
        """Go one part further; False where more bytes are needed."""
        if not self._in_body:
            return self._read_head()
        if self._chunked and self._length is None:
            return self._read_trailer() if self._in_trailer else self._read_chunk_line()
        return self._read_body()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        size = len(self._buffer) if end < 0 else end + 4
        if self._head_bytes + size > HEAD_LIMIT:
            raise HttpError(f"the response's header has more than {HEAD_LIMIT} bytes")
        if end < 0:
            return False
        self._head_bytes += size
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[:size]
        status = _STATUS.fullmatch(lines[0])
        if status is None:
            raise HttpError("what answers does not speak HTTP/1.1")
        fields = _fields(lines[1:])
        code = int(status[1])
        if 100 <= code < 200 and code != 101:
            return True  # an interim response: the real one follows
        if 300 <= code < 400:
            raise HttpError(f"status {code}: redirections are not followed")
        if code != 200 and not self._any_status:
            raise HttpError(f"status {code}")
        self.status = code
        self._frame(fields)
        return True

    def _frame(self, fields: list[tuple[bytes, bytes]]) -> None:
        """How long the body is (RFC 9112, 6.3). What is ambiguous is refused."""
        codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
        lengths = {value for name, value in fields if name == b"content-length"}
        self._in_body = True
        if self.status == 204:  # without a body, whatever the fields say
            self._complete = True
        elif codings:
            if codings != [b"chunked"] or lengths:
                raise HttpError("the response's length is ambiguous")
            self._chunked = True
        elif lengths:
            text = lengths.pop()
            if lengths or re.fullmatch(rb"[0-9]{1,10}", text) is None:
                raise HttpError("the response's length is ambiguous")
            self._length = self._allowed(int(text))
            self._complete = self._length == 0

    def _allowed(self, size: int) -> int:
        if len(self._body) + size > self._limit:
            raise HttpError(f"the response's body has more than {self._limit} bytes")
        return size

    def _read_chunk_line(self) -> bool:
        line = self._line(_CHUNK_LINE_LIMIT)
        if line is None:
            return False
        size = _SIZE.fullmatch(line)
        if size is None:
            raise HttpError("a chunk of the response has no size")
        self._length = self._allowed(int(size[1], 16)) or None
        self._in_trailer = self._length is None
        return True

    def _read_trailer(self) -> bool:
        line = self._line(HEAD_LIMIT - self._head_bytes)
        if line is None:
            return False
        self._head_bytes += len(line) + 2
        self._complete = not line
        return True

    def _read_body(self) -> bool:
        if self._length is None:  # up to the end of the connection
            self._allowed(len(self._buffer))
            self._body += self._buffer
            self._buffer.clear()
            return False
        taken = self._buffer[: self._length]
        del self._buffer[: len(taken)]
        self._body += taken
        self._length -= len(taken)
        if self._length:
            return False
        if not self._chunked:
            self._complete = True
            return True
        return self._end_chunk()

    def _end_chunk(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise HttpError("a chunk of the response is longer than its size")
        del self._buffer[:2]
        self._length = None
        return True

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if (len(self._buffer) if end < 0 else end) > limit:
            raise HttpError(f"a line of the response has more than {limit} bytes")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise HttpError("a header line of the response is malformed")
        fields.append((match[1].lower(), match[2]))
    return fields
