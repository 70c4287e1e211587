"""The server name in a ClientHello: read from real ones, in any pieces; nothing else has one."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.tls.hello import LIMIT, ClientHello


def hello(name: str | None = "www.example.com") -> bytes:
    """The first flight of Python's own TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(flight: bytes, size: int) -> bytes:
    """The same handshake message in records of this many bytes (RFC 8446, 5.1)."""
    message = flight[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(flight[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def read(*pieces: bytes) -> ClientHello:
    reader = ClientHello()
    for piece in pieces:
        reader.feed(piece)
    return reader


@pytest.mark.parametrize(("asked", "found"), [("WWW.Example.com", "www.example.com"), (None, None)])
def test_the_name_that_is_asked_for(asked: str | None, found: str | None) -> None:
    reader = read(hello(asked))
    assert reader.complete
    assert reader.server_name == found


def with_name(name: str) -> bytes:
    """A flight that asks for this name, which may be longer than any client would take."""
    fill = "placeholder.example"
    flight, grown = hello(fill), len(name) - len(fill)
    at = flight.index(fill.encode())
    longer = bytearray(flight[:at] + name.encode() + flight[at + len(fill) :])
    # The lengths that the name is part of: its own, its list's, its extension's, all extensions', and the
    # handshake message's and the record's (RFC 6066, 3; RFC 8446, 4.1.2).
    suites = 5 + 4 + 2 + 32 + 1 + flight[5 + 4 + 2 + 32]
    methods = suites + 2 + int.from_bytes(flight[suites : suites + 2], "big")
    for start in (at - 2, at - 5, at - 7, methods + 1 + flight[methods], 7, 3):
        longer[start : start + 2] = (int.from_bytes(flight[start : start + 2], "big") + grown).to_bytes(
            2, "big"
        )
    return bytes(longer)


@pytest.mark.parametrize(("length", "kept"), [(255, True), (256, False), (8000, False)])
def test_a_name_that_is_no_hosts_is_kept_nowhere(length: int, kept: bool) -> None:
    reader = read(with_name("a" * length))
    assert reader.complete
    assert reader.server_name == ("a" * length if kept else None)


@pytest.mark.parametrize("size", [1, 7, 16384])
def test_pieces_and_records_of_any_size(size: int) -> None:
    flight = in_records(hello(), size)
    whole = read(flight)
    bytewise = read(*(bytes((byte,)) for byte in flight))
    for reader in (whole, bytewise):
        assert reader.complete
        assert reader.server_name == "www.example.com"
        assert reader.data == flight


def test_it_is_not_complete_before_its_last_byte() -> None:
    flight = hello()
    reader = read(flight[:-1])
    assert not reader.complete
    assert reader.server_name is None


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01\x00\x02\x02\x28", b"\x16\x03\x01\x00\x00"]
)
def test_what_is_no_client_hello_is_not_waited_for(data: bytes) -> None:
    reader = read(data)
    assert reader.complete
    assert reader.server_name is None


def test_what_never_ends_is_bounded() -> None:
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(0x4000 - 4)
    reader = ClientHello()
    while not reader.complete:
        reader.feed(record)
    assert len(reader.data) < LIMIT + len(record)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_give_a_name_or_none(noise: bytes, at: int) -> None:
    for data in (noise, FLIGHT[:at] + noise, FLIGHT[:at] + noise + FLIGHT[at:]):
        reader = read(data)
        bytewise = read(*(bytes((byte,)) for byte in data))
        assert reader.server_name == bytewise.server_name
        assert reader.complete == bytewise.complete


FLIGHT = hello()
