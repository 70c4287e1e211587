"""What is seen from outside: the records of a real session, in any pieces, and of any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.trace import Direction, Record
from culvert.trace.wire import MESSAGE_LIMIT, WireDirection

from ..tls.conftest import Authority
from ..tls.ends import TLS12, TLS13, context
from .sessions import Watched, messages, of

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


def seen(*pieces: bytes, direction: Direction = Direction.TO_SERVER) -> list[Record]:
    reader = WireDirection("1", direction)
    return [record for piece in pieces for record in reader.feed(piece, 1.0)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def session(authority: Authority, version: str, *options: str) -> Watched:
    found = Watched(context(version, client=True), context(version, authority.server_cert, *options))
    found.pair.shake_hands()
    found.pair.carry(found.pair.client, found.pair.server, b"hello")
    found.pair.close()
    return found


@VERSIONS
def test_the_records_are_those_that_the_engine_tells_of(authority: Authority, version: str) -> None:
    watched = session(authority, version)
    for direction in Direction:
        inside = of(watched.records("client"), direction)
        outside = seen(watched.wire("client", direction))
        assert [(one.type, one.version, one.length) for one in outside] == [
            (one.type, one.version, one.length) for one in inside
        ]


@VERSIONS
def test_pieces_of_any_size_give_the_same(authority: Authority, version: str) -> None:
    watched = session(authority, version)
    for direction in Direction:
        data = watched.wire("client", direction)
        assert seen(*bytewise(data)) == seen(data)


def test_what_is_in_clear_in_tls_1_2(authority: Authority) -> None:
    watched = session(authority, TLS12)
    found = [message.name for message in messages(seen(watched.wire("client", Direction.TO_CLIENT)))]
    assert found == ["ServerHello", "Certificate", "ServerKeyExchange", "ServerHelloDone", "NewSessionTicket"]


def test_what_is_in_clear_in_tls_1_3(authority: Authority) -> None:
    watched = session(authority, TLS13, "curves = P-384")
    there, back = (seen(watched.wire("client", direction)) for direction in Direction)
    assert [message.name for message in messages(there)] == ["ClientHello", "ClientHello"]
    assert [message.name for message in messages(back)] == ["HelloRetryRequest", "ServerHello"]
    assert all(record.opaque for record in (*there, *back) if record.type == 23)


def test_text_before_tls_is_passed_over(authority: Authority) -> None:
    flight = session(authority, TLS13).wire("client", Direction.TO_SERVER)
    assert seen(b"EHLO a\r\nSTARTTLS\r\n" + flight) == seen(flight)
    assert seen(*bytewise(b"EHLO a\r\nSTARTTLS\r\n" + flight)) == seen(flight)


def test_what_is_no_record_behind_one_ends_it(authority: Authority) -> None:
    flight = session(authority, TLS13).wire("client", Direction.TO_SERVER)
    found = seen(flight + b"GET / HTTP/1.0\r\n\r\n", flight)
    assert [one.type for one in found[-2:]] == [23, 256]


def test_a_message_that_is_too_long_is_not_kept() -> None:
    start = b"\x16\x03\x03\x00\x04\x0b" + (MESSAGE_LIMIT + 1).to_bytes(3, "big")
    assert [record.messages for record in seen(start, b"\x16\x03\x03\x00\x04\x0e\0\0\0")] == [(), ()]


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda data: b"\x16\x03\x01" + data)))
def test_any_bytes_give_the_same_whole_and_one_at_a_time(data: bytes) -> None:
    def without_rest(records: list[Record]) -> list[tuple[int, int, int]]:
        # How much came together with what is no record differs.
        return [(one.type, one.version, 0 if one.type == 256 else one.length) for one in records]

    assert without_rest(seen(data)) == without_rest(seen(*bytewise(data)))
