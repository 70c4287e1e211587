"""Answers of ident servers: who is named, and what is no answer (RFC 1413, 4 and 6)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.negotiate.ident import IdentError, owner, question


def test_the_question_names_their_port_first() -> None:
    assert question(6193, 23) == b"6193 , 23\r\n"


@pytest.mark.parametrize(
    ("line", "user"),
    [
        (b"6193, 23 : USERID : UNIX : stjohns", b"stjohns"),
        (b"6193,23:USERID:UNIX:stjohns", b"stjohns"),
        (b" 6193 , 23 : userid : unix,US-ASCII : a:b c ", b"a:b c"),
        (b"6193, 23 : USERID : TOPS20 : jos\xc3\xa9", b"jos\xc3\xa9"),
    ],
)
def test_a_name(line: bytes, user: bytes) -> None:
    assert owner(line, 6193, 23) == user


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "belongs to no question"),
        (b"6193, 23", "belongs to no question"),
        (b"6193, 24 : USERID : UNIX : root", "belongs to no question"),
        (b"23, 6193 : USERID : UNIX : root", "belongs to no question"),
        (b"6193, 23 : USER : UNIX : root", "belongs to no question"),
        (b"6193, 23 : ERROR : NO-USER", "answers NO-USER"),
        (b"6193, 23 : ERROR : HIDDEN-USER ", "answers HIDDEN-USER"),
        (b"6193, 23 : ERROR : USERID : UNIX : root", "answers with an error"),
        (b"6193, 23 : USERID : UNIX", "names no user"),
        (b"6193, 23 : USERID : UNIX :  ", "names no user"),
        (b"6193, 23 : USERID : OTHER : root", "names no user"),
        (b"6193, 23 : USERID : other,UTF-8 : root", "names no user"),
    ],
)
def test_no_name(line: bytes, reason: str) -> None:
    with pytest.raises(IdentError, match=reason):
        owner(line, 6193, 23)


@given(st.one_of(st.binary(max_size=100), st.binary(max_size=60).map(lambda tail: b"1,2:USERID:" + tail)))
def test_any_bytes_are_a_name_or_the_one_error(line: bytes) -> None:
    with contextlib.suppress(IdentError):
        assert owner(line, 1, 2)
