"""NetBIOS's session request in its use for TLS, on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.negotiate import cifs
from culvert.negotiate.script import NegotiationError, Side

from .player import NO_ENDS, Play, play

USE_TLS = b"\x83\0\0\x01\x8e"


def asks(server: bytes) -> Play:
    return play(cifs.CLIENT.before(NO_ENDS), server=server)


def answers(client: bytes) -> Play:
    return play(cifs.SERVER.before(NO_ENDS), client=client)


def test_a_server_that_asks_for_tls() -> None:
    played = asks(USE_TLS + b"early")
    assert played.error is None
    assert played.to_server == b"\x81\0\0\0"
    assert played.discarded[Side.SERVER] == b"early"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (b"\x82\0\0\0", "without TLS"),
        (b"\x83\0\0\x01\x82", "the called name is not present"),
        (b"\x83\0\0\x01\x42", "error 0x42"),
        (b"\x83\0\0\x02\x8e\x8e", "does not speak"),
        (b"HTTP/1.1 400", "does not speak"),
        (b"\x83\0\0", "closed the connection"),
    ],
)
def test_a_server_that_does_not(server: bytes, reason: str) -> None:
    assert reason in asks(server).reason


@pytest.mark.parametrize("names", [b"", b"\x20" + b"C" * 33 + b"\x20" + b"A" * 33])
def test_a_session_request_is_answered(names: bytes) -> None:
    played = answers(b"\x81\0\0" + bytes((len(names),)) + names + b"early")
    assert played.error is None
    assert played.to_client == USE_TLS
    assert played.discarded[Side.CLIENT] == b"early"


@pytest.mark.parametrize("client", [b"\x00\0\0\x40rest", b"\x81\x01\0\0" + bytes(70000), b"GET / HTTP/1.1"])
def test_what_is_no_session_request_is_refused(client: bytes) -> None:
    played = answers(client)
    assert isinstance(played.error, NegotiationError)
    assert played.to_client == b"\x83\0\0\x01\x8f"


@given(st.binary(max_size=400))
def test_any_bytes_end_in_a_result_or_in_the_one_error(data: bytes) -> None:
    for played in (asks(data), answers(data), answers(b"\x81" + data)):
        assert played.error is None or isinstance(played.error, NegotiationError)
