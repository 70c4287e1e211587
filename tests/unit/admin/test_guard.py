"""Who may ask: the host that is named, the token, and what a browser can be made to send."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.admin.request import Guard, Refused, Request

TOKEN = b"0123456789abcdef"
NAMES = frozenset({"gateway.example"})


def ask(method: str = "GET", *, local: bool = False, target: str = "/status", **headers: str) -> Request:
    return Request(method, target, {"host": "localhost", **headers}, b"", local)


def refusal(guard: Guard, request: Request, *, public: bool = False) -> HTTPStatus | None:
    """The status that a request is refused with; None for one that is let in."""
    try:
        guard.check(request, public=public)
    except Refused as refused:
        return refused.status
    return None


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.0.0.1:80", "[::1]:9", "Gateway.Example", "192.0.2.1"]
)
def test_hosts_that_lead_here(host: str) -> None:
    assert refusal(Guard(None, NAMES), ask(host=host)) is None


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "127.0.0.1@evil", "[::1", "a b", "1:2:3"]
)
def test_hosts_that_do_not(host: str) -> None:
    assert refusal(Guard(None, NAMES), ask(host=host)) is HTTPStatus.MISDIRECTED_REQUEST


def test_over_the_unix_socket_any_host_does_that_is_no_domain() -> None:
    assert refusal(Guard(None, NAMES), ask(local=True, host="anything")) is None
    assert refusal(Guard(None, NAMES), ask(local=True, host="")) is None
    assert refusal(Guard(None, NAMES), ask(local=True, host="127.0.0.1:9100")) is None
    assert refusal(Guard(None, NAMES), ask("POST", local=True)) is None
    found = refusal(Guard(None, NAMES), ask(local=True, host="evil.example:9100"))
    assert found is HTTPStatus.MISDIRECTED_REQUEST


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9100"])
def test_a_web_page_changes_nothing_through_a_forwarded_socket(origin: str) -> None:
    assert refusal(Guard(None, NAMES), ask("POST", local=True, origin=origin)) is HTTPStatus.FORBIDDEN
    authorization = f"Bearer {TOKEN.decode()}"
    request = ask("POST", local=True, origin=origin, authorization=authorization)
    assert refusal(Guard(TOKEN, NAMES), request) is None


def test_an_action_over_tcp_needs_a_token_to_be_set() -> None:
    assert refusal(Guard(None, NAMES), ask("POST")) is HTTPStatus.FORBIDDEN


def test_the_token_is_asked_of_all() -> None:
    guard = Guard(TOKEN, NAMES)
    assert refusal(guard, ask()) is HTTPStatus.UNAUTHORIZED
    assert refusal(guard, ask(local=True)) is HTTPStatus.UNAUTHORIZED
    assert refusal(guard, ask("POST", authorization=f"bearer {TOKEN.decode()}")) is None


def test_what_is_public_is_read_without_the_token() -> None:
    guard = Guard(TOKEN, NAMES)
    assert refusal(guard, ask(), public=True) is None
    assert refusal(guard, ask("HEAD"), public=True) is None
    assert refusal(guard, ask("POST"), public=True) is HTTPStatus.UNAUTHORIZED
    assert refusal(guard, ask(host="evil.example"), public=True) is HTTPStatus.MISDIRECTED_REQUEST


def test_another_host_is_refused_before_the_token_is_asked_for() -> None:
    assert refusal(Guard(TOKEN, NAMES), ask(host="evil.example")) is HTTPStatus.MISDIRECTED_REQUEST


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_sent_is_answered_or_refused(host: str, authorization: str, target: str) -> None:
    guard = Guard(TOKEN, NAMES)
    request = ask(target=f"/{target}", host=host, authorization=authorization)
    assert refusal(guard, request) in (HTTPStatus.UNAUTHORIZED, HTTPStatus.MISDIRECTED_REQUEST)
