"""NNTP with STARTTLS, the client end."""

from __future__ import annotations

import pytest

from culvert.negotiate.script import Side

from .dialogue import Outcome, play
from .services import after, before


def ask(*server: bytes) -> Outcome:
    """What is said before the handshake."""
    return play(before("nntp", client=True), server=server)


@pytest.mark.parametrize("greeting", [b"200 posting allowed\r\n", b"201 read only\r\n"])
def test_it_asks_for_tls_and_hands_the_greeting_on_inside(greeting: bytes) -> None:
    outcome = ask(greeting, b"382 continue\r\n")
    assert outcome.to_server == b"STARTTLS\r\n"
    assert outcome.to_client == b""
    assert play(after("nntp", outcome.returned, client=True)).to_client == greeting


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ([b"502 not you\r\n"], 'refused the connection: "502 not you"'),
        ([b"400 maintenance\r\n"], 'refused the connection: "400 maintenance"'),
        ([b"220 smtp\r\n"], 'refused the connection: "220 smtp"'),
        ([b"200 hi\r\n", b"580 cannot\r\n"], 'refused STARTTLS: "580 cannot"'),
        ([b"200 hi\r\n", b"500 what?\r\n"], 'refused STARTTLS: "500 what?"'),
        ([b"+OK pop3\r\n"], "does not speak the protocol"),
        ([b"200 one\r201 two\r\n"], "the server sent a line with a control character"),
        ([], "the server closed the connection"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(server: list[bytes], reason: str) -> None:
    outcome = ask(*server)
    assert reason in outcome.reason
    assert outcome.to_client.startswith(b"400 ")
    assert outcome.to_client.endswith(b"\r\n")


def test_what_the_server_sends_ahead_of_tls_is_dropped() -> None:
    outcome = ask(b"200 hi\r\n", b"382 continue\r\n200 injected\r\n")
    assert outcome.error is None
    assert outcome.discarded[Side.SERVER] == b"200 injected\r\n"
