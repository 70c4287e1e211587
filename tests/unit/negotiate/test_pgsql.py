"""PostgreSQL's SSLRequest on both sides, and what those are told who are refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.errors import BackendError
from culvert.negotiate import pgsql
from culvert.negotiate.script import NegotiationError, Side

from .player import NO_ENDS, SECURED, Play, play

SSL = pgsql.request(pgsql.SSL_REQUEST)
GSS = pgsql.request(pgsql.GSSENC_REQUEST)
CANCEL = struct.pack("!iIiI", 16, pgsql.CANCEL_REQUEST, 4711, 0xDEADBEEF)
STARTUP = struct.pack("!iI", 8 + 15, 3 << 16) + b"user\0postgres\0\0"


def asks(server: bytes) -> Play:
    return play(pgsql.CLIENT.before(NO_ENDS), server=server)


def answers(client: bytes) -> Play:
    return play(pgsql.SERVER.before(NO_ENDS), client=client)


def told(reply: bytes) -> tuple[str, str]:
    """The SQLSTATE and the message of an ErrorResponse, whose length must be right."""
    assert reply[:1] == b"E"
    assert int.from_bytes(reply[1:5], "big") == len(reply) - 1
    assert reply.endswith(b"\0\0")
    fields = {chr(part[0]): part[1:].decode() for part in reply[5:].split(b"\0") if part}
    assert fields["S"] == fields["V"] == "FATAL"
    return fields["C"], fields["M"]


# --- the client's side ---


def test_the_request_and_the_servers_consent() -> None:
    played = asks(b"S")
    assert played.error is None
    assert played.to_server == bytes.fromhex("0000000804d2162f")
    assert played.to_client == b""


def test_what_comes_behind_the_consent_is_discarded() -> None:
    assert asks(b"Sinjected").discarded[Side.SERVER] == b"injected"


def test_a_server_without_tls() -> None:
    played = asks(b"N")
    assert "does not take TLS connections" in played.reason
    assert told(played.to_client)[0] == "08006"


def test_an_error_is_logged_in_the_servers_words_and_not_passed_on() -> None:
    played = asks(pgsql.error_response("53300", "sorry, too many clients already"))
    assert played.reason.endswith("FATAL 53300: sorry, too many clients already")
    assert "too many" not in told(played.to_client)[1]


def test_an_error_of_an_older_server_is_text_alone() -> None:
    assert asks(b"Ecould not fork new process\n\0").reason.endswith("error: could not fork new process")


def test_a_flood_in_place_of_an_error_is_cut() -> None:
    played = asks(b"E" + b"x" * 100_000)
    assert len(played.rest[Side.SERVER]) > 98_000
    assert len(played.reason) < 1200


def test_another_protocol() -> None:
    assert "does not speak PostgreSQL" in asks(b"220 mail").reason


def test_the_plain_client_is_told_of_an_unreachable_server() -> None:
    played = play(pgsql.CLIENT.before(NO_ENDS), unreachable=BackendError("No more addresses to connect"))
    assert told(played.to_client) == ("08006", "the server cannot be reached")
    assert isinstance(played.error, BackendError)


def passes(client: bytes) -> Play:
    return play(pgsql.CLIENT.after(NO_ENDS, SECURED), client=client)


@pytest.mark.parametrize("asked", [b"", SSL, GSS, GSS + SSL, SSL + GSS])
def test_the_plain_clients_wish_for_encryption_is_declined(asked: bytes) -> None:
    played = passes(asked + STARTUP)
    assert played.error is None
    assert played.to_client == b"N" * (len(asked) // 8)
    assert played.to_server + played.rest[Side.CLIENT] == STARTUP


def test_a_client_that_does_nothing_but_ask_is_left() -> None:
    assert "over and over" in passes(SSL * 4).reason


# --- the server's side ---


def test_the_request_is_granted() -> None:
    played = answers(SSL)
    assert played.error is None
    assert played.to_client == b"S"


def test_gss_is_declined_and_tls_granted_on_the_same_connection() -> None:
    played = answers(GSS + SSL)
    assert played.error is None
    assert played.to_client == b"NS"


def test_gss_is_asked_for_once() -> None:
    assert "no SSLRequest" in answers(GSS + GSS + SSL).reason


def test_what_comes_in_clear_behind_the_request_is_discarded() -> None:
    played = answers(SSL + STARTUP)
    assert played.discarded[Side.CLIENT] == STARTUP
    assert played.to_client == b"S"


def test_a_session_in_clear_is_refused() -> None:
    played = answers(STARTUP)
    state, message = told(played.to_client)
    assert state == "28000"
    assert "sslmode=require" in message
    assert "in clear" in played.reason


def test_a_session_in_clear_is_refused_also_after_gss() -> None:
    played = answers(GSS + STARTUP)
    assert told(played.to_client[1:])[0] == "28000"


def test_a_cancel_request_in_clear_gets_nowhere() -> None:
    played = answers(CANCEL)
    assert played.to_client == b""
    assert "CancelRequest" in played.reason


def test_another_protocol_is_refused() -> None:
    played = answers(b"GET / HTTP/1.1\r\n\r\n")
    assert told(played.to_client)[0] == "08P01"
    assert "does not speak PostgreSQL" in played.reason


def test_a_client_may_begin_with_tls() -> None:
    played = answers(b"\x16\x03\x01")
    assert played.error is None
    assert played.rest[Side.CLIENT] == b"\x16\x03\x01"
    assert played.to_client == b""


def test_an_unreachable_backend_is_told_inside_tls() -> None:
    error = BackendError("No more addresses to connect")
    played = play(pgsql.SERVER.after(NO_ENDS, SECURED), unreachable=error)
    assert told(played.to_client)[0] == "57P03"
    assert played.error is error


# --- any bytes ---


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda rest: b"E" + rest))
def test_any_answer_ends_in_a_result_or_in_the_one_error(server: bytes) -> None:
    played = asks(server)
    assert played.error is None or isinstance(played.error, NegotiationError)
    assert (played.error is None) == server.startswith(b"S")


@given(
    st.binary(max_size=40)
    | st.sampled_from([SSL, GSS, CANCEL, STARTUP]).flatmap(
        lambda first: st.binary(max_size=20).map(lambda rest: first + rest)
    )
)
def test_any_client_ends_in_a_result_or_in_the_one_error(client: bytes) -> None:
    played = answers(client)
    assert played.error is None or isinstance(played.error, NegotiationError)


@given(st.binary(max_size=300))
@pytest.mark.parametrize("prefix", [b"", b"SFATAL\0C28000\0M"])
def test_any_fields_give_words(prefix: bytes, fields: bytes) -> None:
    assert "\0" not in pgsql.error_words(prefix + fields)
