"""SOCKS 4, 4a and 5 on the server's side: requests, reply codes, and requests that name nothing."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.address import HostPort
from culvert.errors import BackendError, ConnectError, Unreached
from culvert.negotiate import socks
from culvert.negotiate.script import NegotiationError

from .player import NO_ENDS, SECURED, Play, play

HELLO = b"\x05\x01\x00"
PORT = (443).to_bytes(2, "big")
V4 = b"\x01\xc0\x00\x02\x01" + PORT
V6 = b"\x04" + bytes.fromhex("20010db8000000000000000000000001") + PORT
GRANTED5 = b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6)


def named(name: bytes) -> bytes:
    return b"\x03" + bytes((len(name),)) + name + PORT


def connect5(address: bytes, command: int = 1) -> bytes:
    return HELLO + bytes((5, command, 0)) + address


def connect4(address: bytes, user: bytes = b"me", name: bytes | None = None, command: int = 1) -> bytes:
    return bytes((4, command)) + PORT + address + user + b"\0" + (b"" if name is None else name + b"\0")


def asked(client: bytes, unreachable: BackendError | None = None) -> Play:
    return play(socks.SERVER.after(NO_ENDS, SECURED), client=client, unreachable=unreachable)


@pytest.mark.parametrize(
    ("request_", "host"),
    [
        (connect5(V4), "192.0.2.1"),
        (connect5(V6), "2001:db8::1"),
        (connect5(named(b"db.example.com")), "db.example.com"),
        (connect5(named(b"2001:db8::1")), "2001:db8::1"),
    ],
)
def test_version_5(request_: bytes, host: str) -> None:
    played = asked(request_ + b"data")
    assert played.error is None
    assert played.targets == [HostPort(host, 443)]
    assert played.to_client == GRANTED5
    assert next(iter(played.rest.values())) == b"data"


@pytest.mark.parametrize(
    ("request_", "host"),
    [
        (connect4(b"\xc0\x00\x02\x01"), "192.0.2.1"),
        (connect4(b"\xc0\x00\x02\x01", user=b""), "192.0.2.1"),
        (connect4(b"\0\0\0\x07", name=b"db.example.com"), "db.example.com"),
        (connect4(bytes(4)), "0.0.0.0"),
    ],
)
def test_versions_4_and_4a(request_: bytes, host: str) -> None:
    played = asked(request_)
    assert played.error is None
    assert played.targets == [HostPort(host, 443)]
    assert played.to_client == b"\x00\x5a" + bytes(6)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Unreached.FORBIDDEN, 2),
        (Unreached.UNRESOLVED, 4),
        (Unreached.REFUSED, 5),
        (Unreached.NETWORK_UNREACHABLE, 3),
        (Unreached.HOST_UNREACHABLE, 4),
        (Unreached.TIMED_OUT, 4),
        (Unreached.FAILED, 1),
    ],
)
def test_the_reply_says_why_the_target_was_not_reached(cause: Unreached, code: int) -> None:
    error = ConnectError("no", cause)
    played = asked(connect5(V4), error)
    assert played.to_client == b"\x05\x00" + bytes((5, code, 0, 1)) + bytes(6)
    assert played.error is error
    assert asked(connect4(b"\xc0\x00\x02\x01"), error).to_client == b"\x00\x5b" + bytes(6)


@pytest.mark.parametrize(
    ("request_", "reply", "reason"),
    [
        (connect5(V4, 2), b"\x05\x00\x05\x07\x00\x01" + bytes(6), "2 (BIND) is not supported"),
        (connect5(V4, 3), b"\x05\x00\x05\x07\x00\x01" + bytes(6), "3 (UDP ASSOCIATE) is not supported"),
        (connect5(V4, 0xF0), b"\x05\x00\x05\x07\x00\x01" + bytes(6), "240 (unknown) is not supported"),
        (connect5(b"\x02\x00"), b"\x05\x00\x05\x08\x00\x01" + bytes(6), "unknown type 2"),
        (connect5(named(b"")), b"\x05\x00\x05\x01\x00\x01" + bytes(6), "names no host"),
        (connect5(named(b"a\0b")), b"\x05\x00\x05\x01\x00\x01" + bytes(6), "names no host"),
        (connect5(named(b"fe80::1%lo")), b"\x05\x00\x05\x01\x00\x01" + bytes(6), "names no host"),
        (connect5(named(b"-x")), b"\x05\x00\x05\x01\x00\x01" + bytes(6), "names no host"),
        (b"\x05\x02\x01\x02", b"\x05\xff", "no method"),
        (b"\x05\x00", b"\x05\xff", "no method"),
        (HELLO + b"\x04\x01\x00\x01", b"\x05\x00", "version 4 instead of 5"),
        (connect4(b"\xc0\x00\x02\x01", command=2), b"\x00\x5b" + bytes(6), "2 (BIND) is not supported"),
        (connect4(b"\0\0\0\x01", name=b""), b"\x00\x5b" + bytes(6), "names no host"),
        (connect4(b"\0\0\0\x01", user=b"u" * 300), b"\x00\x5b" + bytes(6), "user name of more than 255"),
        (connect4(b"\0\0\0\x01", name=b"n" * 300), b"\x00\x5b" + bytes(6), "host name of more than 255"),
        (b"GET / HTTP/1.1\r\n\r\n", b"", "its first byte is 0x47"),
        (b"\x05", b"", "closed the connection"),
        (connect5(V4)[:-1], b"\x05\x00", "closed the connection"),
    ],
)
def test_what_is_refused(request_: bytes, reply: bytes, reason: str) -> None:
    played = asked(request_)
    assert reason in played.reason
    assert played.to_client == reply
    assert not played.targets


def test_what_is_no_matter_of_connecting_is_a_general_failure() -> None:
    assert asked(connect5(V4), BackendError("no")).to_client[2:4] == b"\x05\x01"


def test_a_client_whose_certificate_failed_is_asked_nothing() -> None:
    secured = dataclasses.replace(SECURED, redirected=True)
    played = play(socks.SERVER.after(NO_ENDS, secured), client=connect5(V4))
    assert played.targets == [None]
    assert played.to_client == b""


@given(
    st.binary(max_size=600)
    | st.tuples(st.sampled_from([HELLO + b"\x05", b"\x04\x01", b"\x05"]), st.binary(max_size=600)).map(
        b"".join
    )
)
def test_any_bytes_end_in_a_result_or_in_the_one_error(client: bytes) -> None:
    played = asked(client)
    assert played.error is None or isinstance(played.error, NegotiationError)
    assert len(played.targets) <= 1


@given(st.binary(max_size=300))
def test_a_name_is_safe_to_hand_on(name: bytes) -> None:
    host = socks.host_name(name)
    assert host is None or (host.isascii() and host.isprintable() and not set(host) & set(" %/\\'\""))
