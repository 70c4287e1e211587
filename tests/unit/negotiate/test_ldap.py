"""StartTLS of LDAP: the request's bytes, answers in every form that BER has for them, and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.errors import BackendError
from culvert.negotiate.ldap import CLIENT, REQUEST, read_answer
from culvert.negotiate.script import NegotiationError, Side

from .player import NO_ENDS, Play, play


def element(tag: int, content: bytes, form: int = 0) -> bytes:
    """BER; `form` is the number of octets of the length, 0 for the short form."""
    length = (
        bytes((len(content),)) if not form else bytes((0x80 | form,)) + len(content).to_bytes(form, "big")
    )
    return bytes((tag,)) + length + content


def answer(result: int = 0, message: str = "", ident: int = 1, form: int = 0, extra: bytes = b"") -> bytes:
    inner = element(0x0A, bytes((result,)), form) + element(4, b"", form)
    inner += element(4, message.encode(), form) + extra
    return element(0x30, element(2, bytes((ident,)), form) + element(0x78, inner, form), form)


def asked(server: bytes) -> Play:
    return play(CLIENT.before(NO_ENDS), server=server)


def test_the_request_is_the_one_of_rfc_4511() -> None:
    assert REQUEST.hex() == ("301d02010177188016312e332e362e312e342e312e313436362e3230303337")


@pytest.mark.parametrize("form", [0, 1, 2, 4])
def test_success_in_each_form_of_a_length(form: int) -> None:
    played = asked(answer(form=form, extra=element(0x8A, b"1.3.6.1.4.1.1466.20037")))
    assert played.error is None
    assert played.to_server == REQUEST


def test_what_comes_behind_the_answer_is_discarded() -> None:
    assert asked(answer() + b"injected").discarded[Side.SERVER] == b"injected"


def test_a_refusal_is_told_in_the_servers_words() -> None:
    reason = asked(answer(2, "unsupported extended operation")).reason
    assert reason == "the server refuses StartTLS: protocolError (2): unsupported extended operation"


def test_a_notice_of_disconnection() -> None:
    reason = asked(answer(52, "shutting down", ident=0)).reason
    assert reason == "the server ends the LDAP session: unavailable (52): shutting down"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (b"220 mail.example.com ESMTP\r\n", "does not speak LDAP"),
        (b"\x30\x80\x02\x01\x01\x00\x00", "no definite length"),
        (b"\x30\x85\x01\x00\x00\x00\x00", "no definite length"),
        (b"\x30\x84\x7f\xff\xff\xff", "more than 16384 bytes"),
        (answer(ident=2), "request that was not made"),
        (element(0x30, element(2, b"\x01") + element(0x61, b"")), "not an LDAP extended response"),
        (element(0x30, element(2, b"\x01") + b"\x78\x20\x0a"), "ends within an element"),
        (element(0x30, element(2, b"\x01") + element(0x78, element(0x0A, b""))), "a number without digits"),
        (answer()[:-3], "closed the connection"),
        (b"", "closed the connection"),
    ],
)
def test_what_is_no_answer(server: bytes, reason: str) -> None:
    assert reason in asked(server).reason


def test_an_unreachable_server_is_the_backends_fault() -> None:
    assert isinstance(play(CLIENT.before(NO_ENDS), unreachable=BackendError("gone")).error, BackendError)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda rest: b"\x30\x3c\x02\x01\x01\x78" + rest))
def test_any_bytes_end_in_a_result_or_in_the_one_error(server: bytes) -> None:
    error = asked(server).error
    assert error is None or isinstance(error, NegotiationError)


@given(st.binary(max_size=100), st.integers(0, 60), st.integers(0, 255))
def test_any_message_is_read_or_refused(tail: bytes, at: int, byte: int) -> None:
    message = bytearray(answer(2, "no")[2:] + tail)
    message[at % len(message)] = byte
    try:
        read_answer(bytes(message))
    except NegotiationError:
        return
