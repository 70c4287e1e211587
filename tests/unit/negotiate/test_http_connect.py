"""CONNECT through an HTTP proxy: the request, both ways to authenticate, refusals, and hostile answers."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.address import HostPort
from culvert.config.model import ProtocolOptions
from culvert.negotiate import http_connect
from culvert.negotiate.script import NegotiationError, Side

from .player import NO_ENDS, Play, play
from .test_ntlm import CHALLENGE

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def options(
    host: str = "db.example.com",
    *,
    way: str | None = None,
    username: str | None = None,
    password: str | None = None,
    headers: tuple[str, ...] = (),
) -> ProtocolOptions:
    return ProtocolOptions(
        name="connect",
        authentication=way,
        domain="Domain" if way == "ntlm" else None,
        headers=headers,
        host=None,
        username=username,
        target=HostPort(host, 5432),
        password=password,
    )


NTLM = options(way="ntlm", username="User", password="Password")


def asks(server: bytes, chosen: ProtocolOptions | None = None) -> Play:
    return play(http_connect.client(chosen or options()).before(NO_ENDS), server=server)


def test_the_request() -> None:
    played = asks(OK)
    assert played.error is None
    assert played.to_server == (b"CONNECT db.example.com:5432 HTTP/1.1\r\nHost: db.example.com:5432\r\n\r\n")


def test_an_ipv6_target_stands_between_brackets() -> None:
    sent = asks(OK, options("2001:db8::1")).to_server
    assert sent.startswith(b"CONNECT [2001:db8::1]:5432 HTTP/1.1\r\nHost: [2001:db8::1]:5432\r\n")


def test_header_lines_are_added_and_may_replace_the_host() -> None:
    sent = asks(OK, options(headers=("Host: other", "X-Tenant: blue"))).to_server
    assert sent == b"CONNECT db.example.com:5432 HTTP/1.1\r\nHost: other\r\nX-Tenant: blue\r\n\r\n"


def test_basic_authentication() -> None:
    sent = asks(OK, options(username="Aladdin", password="open sesame")).to_server
    assert b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in sent  # RFC 7617, 2


def test_interim_answers_are_passed_over() -> None:
    assert asks(b"HTTP/1.1 100 Continue\r\n\r\n" + OK).error is None


def test_the_fields_of_a_good_answer_say_nothing_of_a_body() -> None:
    played = asks(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert played.error is None


def test_what_comes_behind_a_good_answer_is_discarded() -> None:
    assert asks(OK + b"early").discarded[Side.SERVER] == b"early"


def test_a_refusal_in_the_proxys_words() -> None:
    assert asks(b"HTTP/1.1 403 Filtered\r\n\r\n").reason == "CONNECT request rejected: 403 Filtered"


def test_a_proxy_that_wants_authentication_names_its_schemes() -> None:
    answer = (
        b"HTTP/1.1 407 Who are you?\r\n"
        b'Proxy-Authenticate: Digest realm="a, Basic b", nonce="x", NTLM\r\n'
        b"proxy-authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n"
    )
    reason = asks(answer, options(username="u", password="secret")).reason
    assert reason == (
        "CONNECT request rejected: 407 Who are you? (the proxy asks for Digest, NTLM, Negotiate)"
    )


@pytest.mark.parametrize("secret", ["open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="])
@pytest.mark.parametrize(
    "answer", ["HTTP/1.1 403 No {}\r\n\r\n", "HTTP/1.1 407 No\r\nProxy-Authenticate: {}\r\n\r\n"]
)
def test_a_proxy_cannot_write_the_password_into_the_log(answer: str, secret: str) -> None:
    account = options(username="Aladdin", password="open sesame")
    reason = asks(answer.format(secret).encode(), account).reason
    assert secret not in reason
    assert "CONNECT request rejected: 40" in reason


def test_a_header_line_may_be_the_credentials() -> None:
    chosen = options(username="u", password="p", headers=("proxy-authorization: Bearer x",))
    sent = asks(OK, chosen).to_server
    assert b"Basic" not in sent
    assert b"proxy-authorization: Bearer x\r\n" in sent


BODIES = {
    "length": b"Content-Length: 5\r\n\r\n12345",
    "none": b"Content-Length: 0\r\n\r\n",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n",
}


def challenged(body: bytes, data: bytes = CHALLENGE) -> bytes:
    line = b"Proxy-Authenticate: NTLM " + base64.b64encode(data)
    return b"HTTP/1.1 407 Proxy Authentication Required\r\n" + line + b"\r\n" + body


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_ntlm_proves_itself_over_the_same_connection(body: bytes) -> None:
    played = asks(challenged(body) + OK, NTLM)
    assert played.error is None
    assert len(played.targets) == 1
    sent = [
        base64.b64decode(text) for text in re.findall(rb"Proxy-Authorization: NTLM (\S+)", played.to_server)
    ]
    assert [message[:12] for message in sent] == [b"NTLMSSP\0\x01\0\0\0", b"NTLMSSP\0\x03\0\0\0"]
    assert played.to_server.count(b"CONNECT ") == 2


def test_ntlm_that_is_not_believed() -> None:
    second = b"HTTP/1.1 407 Denied\r\nProxy-Authenticate: NTLM\r\n\r\n"
    reason = asks(challenged(BODIES["none"]) + second, NTLM).reason
    assert reason == "CONNECT request rejected: 407 Denied (the proxy asks for NTLM)"
    assert "Password" not in reason


def test_a_proxy_that_needs_no_ntlm() -> None:
    assert asks(OK, NTLM).error is None


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", "asks for Basic"),
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM !!!!\r\n\r\n", "not in base64"),
        (challenged(BODIES["none"], b"NTLM"), "no valid length"),
        (
            challenged(b"Proxy-Connection: close\r\n" + BODIES["none"]),
            "closes the connection in the middle of NTLM",
        ),
        (challenged(BODIES["none"]).replace(b"/1.1", b"/1.0"), "closes the connection in the middle of NTLM"),
        (challenged(b"\r\n"), "does not say where its answer ends"),
        (challenged(b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), "does not say where"),
        (challenged(b"Content-Length: +1\r\n\r\n"), "does not say where"),
        (challenged(b"Content-Length: 70000\r\n\r\n"), "more than 65536 bytes"),
        (challenged(b"Transfer-Encoding: gzip\r\n\r\n"), "unknown transfer coding"),
        (challenged(b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100), "64 chunks"),
        (challenged(b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n"), "more than 65536 bytes"),
        (challenged(b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n"), "another size"),
    ],
)
def test_ntlm_against_a_proxy_that_breaks_it(server: bytes, reason: str) -> None:
    assert reason in asks(server, NTLM).reason


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP/1"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "does not speak HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "a header line that is none"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n", "more than 100 header lines"),
        (b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 8000 + b"\r\n") * 5 + b"\r\n", "32768 bytes"),
        (b"HTTP/1.1 200 " + b"y" * 9000, "a line of more than 8192 bytes"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10, "more than 5 interim answers"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n", "closed the connection"),
    ],
)
def test_hostile_answers(server: bytes, reason: str) -> None:
    assert reason in asks(server).reason


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"HTTP/1.1 407 x\r\n" + rest))
@pytest.mark.parametrize("chosen", [options(), NTLM], ids=["plain", "ntlm"])
def test_any_bytes_end_in_a_result_or_in_the_one_error(chosen: ProtocolOptions, server: bytes) -> None:
    for answer in (server, challenged(server) + OK, challenged(BODIES["none"], server) + OK):
        played = asks(answer, chosen)
        assert played.error is None or isinstance(played.error, NegotiationError)


@given(st.text(max_size=200))
def test_any_list_of_schemes_is_read(value: str) -> None:
    assert all(name and " " not in name for name in http_connect.schemes(value))
