"""The requests of the admin endpoint as messages: only what is in order is passed on."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.control import REQUEST, Action, Request
from culvert.trace import Wants


@pytest.mark.parametrize(
    "request_",
    [
        Request(Action.LIST, limit=10, service="web"),
        Request(Action.END, ident="aB_-9"),
        Request(Action.LEVEL, level=7),
        Request(Action.RELOAD),
        Request(Action.TRACE, ident="7", service="web", wants=Wants(data=True, secrets=True)),
    ],
)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert Request.decode(request_.encode()) == request_


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"action": "jump"}',
        b'{"action": "level", "level": 8}',
        b'{"action": "level", "level": "7"}',
        b'{"action": "level", "level": true}',
        b'{"action": "end", "ident": "a\\nb"}',
        b'{"action": "end", "ident": 7}',
        b'{"action": "list", "service": 7}',
        b'{"action": "reload", "more": 1}',
        b'{"action": "trace", "wants": {"data": 1}}',
        b'{"action": "trace", "wants": {"more": true}}',
        b'{"action": "trace", "wants": []}',
        b'{"action": "trace", "wants": null}',
        b"[" * 900,
    ],
)
def test_what_is_out_of_order_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request.decode(REQUEST + text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        Request.decode(REQUEST + data)
