"""The line-based protocols, whatever their peers say: an end that is bounded, by a result or one error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.negotiate.script import NegotiationError, Script, Side

from .dialogue import Outcome, play
from .services import after, before
from .test_smtp import CARRIED, LOGIN

SCRIPTS = {
    "smtp-client": lambda: before("smtp", client=True),
    "smtp-login": lambda: after("smtp", CARRIED, *LOGIN, client=True),
    "smtp-server": lambda: before("smtp", client=False),
    "imap-client": lambda: before("imap", client=True),
    "imap-server": lambda: before("imap", client=False),
    "pop3-client": lambda: before("pop3", client=True),
    "pop3-server": lambda: before("pop3", client=False),
    "nntp-client": lambda: before("nntp", client=True),
}

WORDS = [
    *(b"220 ", b"220-", b"250 ", b"250-", b"334 ", b"235 ok", b"421 ", b"5", b"382 ", b"200 "),
    *(b"+OK ", b"-ERR ", b".", b"* OK ", b"* BYE ", b"* PREAUTH ", b"* CAPABILITY ", b"c1 OK ", b"c2 OK "),
    *(b"STARTTLS", b"STLS", b"AUTH PLAIN LOGIN", b"IMAP4rev1", b"[CAPABILITY X]", b"{3+}", b"a ", b"c1"),
    *(b"EHLO ", b"QUIT", b"CAPA", b"LOGOUT", b"CAPABILITY", b"USER x", b"\r\n", b"\n", b"\r", b" ", b"\x00"),
]
SAID = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join),
)


def one_by_one(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


@pytest.mark.parametrize("name", SCRIPTS)
@settings(max_examples=100, deadline=None)
@given(client=SAID, server=SAID)
def test_it_ends_in_a_result_or_a_negotiation_error(name: str, client: bytes, server: bytes) -> None:
    script: Script = SCRIPTS[name]()
    outcome = play(script, client=[client], server=[server])
    assert outcome.error is None or isinstance(outcome.error, NegotiationError)
    for side in Side:
        assert outcome.sent[side] == b"" or outcome.sent[side].endswith(b"\r\n")


@pytest.mark.parametrize("name", SCRIPTS)
@settings(max_examples=60, deadline=None)
@given(client=SAID, server=SAID)
def test_it_is_the_same_line_by_line_and_byte_by_byte(name: str, client: bytes, server: bytes) -> None:
    """Apart from what is found too early, which is a matter of what came together."""
    lines = play(SCRIPTS[name](), client=client.splitlines(True), server=server.splitlines(True))
    single = play(SCRIPTS[name](), client=one_by_one(client), server=one_by_one(server))
    assert told(lines) == told(single)


def told(outcome: Outcome) -> tuple[object, ...]:
    error = None if outcome.error is None else str(outcome.error)
    return outcome.returned, error, outcome.sent, outcome.notes
