"""HTTP responses from responders that may be anybody: read right, or refused, always within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.http_response import HEAD_LIMIT, HttpError, ResponseReader

LIMIT = 1000
OK = b"HTTP/1.1 200 OK\r\n"

GOOD = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "length twice the same": (OK + b"content-length: 5\r\nContent-Length:5\r\n\r\nhello", b"hello"),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-type: x\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "to the end": (OK + b"\r\nhello", b"hello"),
    "largest": (OK + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000, b"x" * 1000),
    "chunked": (OK + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n", b"hello"),
    "trailer": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00\r\nA: b\r\n\r\n", b"hello"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
}

BAD = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "redirection": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "cut head": OK + b"Content-Le",
    "cut body": OK + b"Content-Length: 5\r\n\r\nhell",
    "cut chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "cut trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "too large": OK + b"Content-Length: 1001\r\n\r\n",
    "huge": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
    "negative": OK + b"Content-Length: -5\r\n\r\nhello",
    "plus": OK + b"Content-Length: +5\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "both": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "too large to the end": OK + b"\r\n" + b"x" * 1001,
    "too large in chunks": OK
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"1F4\r\n"
    + b"x" * 500
    + b"\r\n1F5\r\n",
    "no size": OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    "long size": OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 300 + b"\r\nhello",
    "chunk too long": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
    "endless head": OK + b"A: b\r\n" * HEAD_LIMIT,
    "endless line": OK + b"A: " + b"b" * HEAD_LIMIT,
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_LIMIT,
    "endless trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * HEAD_LIMIT,
    "folded": OK + b"A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
    "space before colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
}


def read(data: bytes, size: int) -> bytes | str:
    """The body, or the reason why there is none, of a response that comes in pieces of `size`."""
    reader = ResponseReader(LIMIT)
    try:
        for start in range(0, len(data), size):
            if reader.feed(data[start : start + size]):
                return reader.body
        reader.end()
    except HttpError as error:
        return str(error)
    return reader.body


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("case", GOOD)
def test_a_body_is_read(case: str, size: int) -> None:
    data, body = GOOD[case]
    assert read(data, size) == body


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused_is_refused_however_it_comes(case: str) -> None:
    whole = read(BAD[case], 1 << 20)
    assert isinstance(whole, str)
    assert isinstance(read(BAD[case], 1), str)


def test_what_follows_a_response_is_left_alone() -> None:
    assert read(GOOD["length"][0] + b"more", 1 << 20) == b"hello"


PARTS = st.sampled_from(
    [
        OK,
        b"\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\n",
        b"hello",
        b"0\r\n",
        b"0",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS | st.binary(max_size=8)).map(b"".join), st.integers(1, 9))
def test_any_bytes_give_the_same_however_they_come(data: bytes, size: int) -> None:
    whole = read(data, max(len(data), 1))
    pieces = read(data, size)
    assert isinstance(pieces, str) == isinstance(whole, str)
    assert isinstance(whole, str) or pieces == whole
