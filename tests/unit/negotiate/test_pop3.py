"""POP3 with STLS: each end's script, and what it tells whom when something is not as it should be."""

from __future__ import annotations

import pytest

from culvert.negotiate.replies import COMMANDS, REPLY_LINES
from culvert.negotiate.script import LeftError, Side

from .dialogue import Outcome, play
from .services import after, before

GREETING = b"+OK ready <1896.697170952@mail.example.com>\r\n"
BEGIN = b"+OK Begin TLS negotiation\r\n"


def ask(*server: bytes) -> Outcome:
    """The client end before the handshake."""
    return play(before("pop3", client=True), server=server)


def offer(*client: bytes, server: tuple[bytes, ...] = (GREETING,)) -> Outcome:
    """The server end."""
    return play(before("pop3", client=False), client=client, server=server)


# --- the client end ---


def test_it_asks_for_tls_and_hands_the_greeting_on_inside() -> None:
    outcome = ask(GREETING, b"+OK begin\r\n")
    assert outcome.to_server == b"STLS\r\n"
    assert outcome.to_client == b""
    assert play(after("pop3", outcome.returned, client=True)).to_client == GREETING


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ([b"-ERR busy\r\n"], 'the server refused the connection: "-ERR busy"'),
        ([GREETING, b"-ERR no TLS here\r\n"], 'the server refused STLS: "-ERR no TLS here"'),
        ([b"220 smtp\r\n"], 'does not speak POP3, it said "220 smtp"'),
        ([b"\r\n"], 'does not speak POP3, it said ""'),
        ([GREETING, b"+OKAY\r\n"], 'does not speak POP3, it said "+OKAY"'),
        ([b"+OK one\r+OK two\r\n"], "the server sent a line with a control character"),
        ([GREETING], "the server closed the connection"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(server: list[bytes], reason: str) -> None:
    outcome = ask(*server)
    assert reason in outcome.reason
    assert outcome.to_client.startswith(b"-ERR [SYS/TEMP] The server cannot be reached in the secure way")
    assert outcome.to_client.count(b"\r\n") == 1


def test_what_the_server_sends_ahead_of_tls_is_dropped() -> None:
    outcome = ask(GREETING, b"+OK begin\r\n+OK injected\r\n")
    assert outcome.error is None
    assert outcome.discarded[Side.SERVER] == b"+OK injected\r\n"


def test_a_client_of_an_unreachable_server_is_told() -> None:
    assert play(before("pop3", client=True), reachable=False).to_client.startswith(b"-ERR [SYS/TEMP] ")


# --- the server end ---


def test_it_offers_stls_among_the_backends_capabilities() -> None:
    capa = b"+OK here they are\r\nCAPA\r\nUSER\r\nUIDL\r\nSASL PLAIN LOGIN\r\nSTLS\r\n.\r\n"
    outcome = offer(b"CAPA\r\n", b"STLS\r\n", server=(GREETING, capa))
    assert outcome.error is None
    assert outcome.to_client == (
        GREETING + b"+OK Capability list follows\r\nSTLS\r\nCAPA\r\nUIDL\r\n.\r\n" + BEGIN
    )
    assert outcome.to_server == b"CAPA\r\n"


def test_a_backend_that_knows_no_capa_still_has_stls() -> None:
    outcome = offer(b"CAPA\r\n", b"STLS\r\n", server=(GREETING, b"-ERR what?\r\n"))
    assert outcome.to_client == GREETING + b"+OK Capability list follows\r\nSTLS\r\n.\r\n" + BEGIN


@pytest.mark.parametrize(
    "command", [b"USER me", b"user me", b"PASS secret", b"APOP me 0123", b"AUTH PLAIN", b"AUTH"]
)
def test_a_login_before_tls_is_refused(command: bytes) -> None:
    outcome = offer(command + b"\r\n", b"STLS\r\n")
    assert outcome.to_client == GREETING + b"-ERR Logging in needs TLS: issue STLS first\r\n" + BEGIN
    assert outcome.to_server == b""


@pytest.mark.parametrize("command", [b"STAT", b"NOOP", b"", b"\xff\x00", b"UTF8"])
def test_other_commands_before_tls_are_refused(command: bytes) -> None:
    outcome = offer(command + b"\r\n", b"STLS\r\n")
    assert outcome.to_client == GREETING + b"-ERR Not before TLS: issue STLS first\r\n" + BEGIN


def test_what_a_client_sends_behind_stls_is_dropped() -> None:
    outcome = offer(b"STLS\r\nUSER injected\r\n")
    assert outcome.discarded[Side.CLIENT] == b"USER injected\r\n"
    assert outcome.to_client.endswith(BEGIN)


def test_a_client_may_leave() -> None:
    outcome = offer(b"QUIT\r\n")
    assert isinstance(outcome.error, LeftError)
    assert outcome.to_client == GREETING + b"+OK Bye\r\n"


def test_a_backend_that_refuses_is_passed_on() -> None:
    assert offer(server=(b"-ERR [IN-USE] locked\r\n",)).to_client == b"-ERR [IN-USE] locked\r\n"


def test_a_list_without_end_is_refused() -> None:
    outcome = offer(b"CAPA\r\n", server=(GREETING, b"+OK\r\n" + b"X\r\n" * (REPLY_LINES + 1)))
    assert f"a list of more than {REPLY_LINES} lines" in outcome.reason


def test_a_client_that_goes_on_without_tls_is_sent_away() -> None:
    outcome = offer(*[b"NOOP\r\n"] * (COMMANDS + 10))
    assert outcome.to_client.endswith(b"-ERR Too many commands without STLS\r\n")
