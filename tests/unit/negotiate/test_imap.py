"""IMAP with STARTTLS: each end's script, and what it tells whom when something is not as it should be."""

from __future__ import annotations

import pytest

from culvert.negotiate.replies import COMMANDS, REPLY_LINES
from culvert.negotiate.script import LeftError, Side

from .dialogue import Outcome, play
from .services import after, before

OFFERED = b"* CAPABILITY IMAP4rev1 STARTTLS\r\nc1 OK done\r\n"
BEGIN = b"c2 OK begin\r\n"
GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID IDLE AUTH=PLAIN AUTH=LOGIN] Dovecot ready.\r\n"
SHOWN = b"CAPABILITY IMAP4rev1 ID IDLE STARTTLS LOGINDISABLED"
OPENING = b"* OK [" + SHOWN + b"] Dovecot ready.\r\n"


def ask(*server: bytes) -> Outcome:
    """The client end before the handshake."""
    return play(before("imap", client=True), server=server)


def offer(*client: bytes, server: tuple[bytes, ...] = (GREETING,)) -> Outcome:
    """The server end."""
    return play(before("imap", client=False), client=client, server=server)


# --- the client end ---


def test_it_waits_for_the_greeting_and_asks_for_tls() -> None:
    outcome = ask(b"* OK ready\r\n", OFFERED, BEGIN)
    assert outcome.error is None
    assert outcome.to_server == b"c1 CAPABILITY\r\nc2 STARTTLS\r\n"
    assert outcome.to_client == b""


@pytest.mark.parametrize(
    ("greeting", "handed_on"),
    [
        (b"* OK ready", b"* OK ready\r\n"),
        (b"* OK", b"* OK ready\r\n"),
        (b"* ok [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hello", b"* OK hello\r\n"),
        (b"* OK [ALERT] your bank has moved", b"* OK your bank has moved\r\n"),
        (b"* OK [REFERRAL imap://elsewhere/] hello", b"* OK hello\r\n"),
    ],
)
def test_the_client_gets_the_greeting_without_its_code(greeting: bytes, handed_on: bytes) -> None:
    """What the server said of itself in clear is not to be believed inside TLS."""
    outcome = ask(greeting + b"\r\n", OFFERED, BEGIN)
    assert play(after("imap", outcome.returned, client=True)).to_client == handed_on


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ([b"* BYE overloaded\r\n"], 'the server refused the connection: "* BYE overloaded"'),
        ([b"* PREAUTH hello\r\n"], "as if after a login"),
        ([b"+OK POP3\r\n"], 'does not speak IMAP, it said "+OK POP3"'),
        ([b"* OK hi\r\n", b"* CAPABILITY IMAP4rev1\r\nc1 OK done\r\n"], "offers no STARTTLS"),
        ([b"* OK hi\r\n", b"c1 BAD what\r\n"], 'offers no STARTTLS: "c1 BAD what"'),
        ([b"* OK hi\r\n", OFFERED, b"c2 NO not now\r\n"], 'refused STARTTLS: "c2 NO not now"'),
        ([b"* OK hi\r\n", OFFERED, b"c2 BAD eh\r\n"], 'refused STARTTLS: "c2 BAD eh"'),
        ([b"* OK hi\r\n", b"* BYE timeout\r\n"], 'closes the connection: "* BYE timeout"'),
        ([b"* OK hi\r\n", b"* OK still\r\n" * REPLY_LINES], f"more than {REPLY_LINES} lines"),
        ([b"* OK hi\r\n", b"+ go\r\n"], "does not speak IMAP"),
        ([b"* OK hi\r\n", b"\r\n"], "does not speak IMAP"),
        ([b"* OK hi\r\n", b"c1\r\n"], "does not speak IMAP"),
        ([b"* OK hi\r* PREAUTH\r\n"], "the server sent a line with a control character"),
        ([], "the server closed the connection"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(server: list[bytes], reason: str) -> None:
    outcome = ask(*server)
    assert reason in outcome.reason
    assert outcome.to_client.startswith(b"* BYE [UNAVAILABLE] The server cannot be reached in the secure way")
    assert outcome.to_client.count(b"\r\n") == 1


def test_what_the_server_sends_ahead_of_tls_is_dropped() -> None:
    outcome = ask(b"* OK hi\r\n", OFFERED, BEGIN + b"* OK injected\r\n")
    assert outcome.error is None
    assert outcome.discarded[Side.SERVER] == b"* OK injected\r\n"


def test_untagged_lines_between_are_passed_over() -> None:
    outcome = ask(b"* OK hi\r\n", b"* OK wait\r\n" + OFFERED, b"* OK soon\r\n" + BEGIN)
    assert outcome.error is None


# --- the server end ---


def test_it_shows_the_backends_capabilities_with_starttls() -> None:
    outcome = offer(b"a CAPABILITY\r\n", b"b STARTTLS\r\n")
    assert outcome.error is None
    assert outcome.to_client == (
        OPENING + b"* " + SHOWN + b"\r\na OK Capability completed\r\nb OK Begin TLS negotiation\r\n"
    )
    assert outcome.to_server == b""


def test_a_backend_that_greets_without_capabilities_is_asked() -> None:
    answer = b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nc1 OK done\r\n"
    outcome = offer(b"b STARTTLS\r\n", server=(b"* OK hi\r\n", answer))
    assert outcome.to_server == b"c1 CAPABILITY\r\n"
    assert outcome.to_client.startswith(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi\r\n")


def test_a_backend_that_tells_none_has_the_least() -> None:
    outcome = offer(b"b STARTTLS\r\n", server=(b"* OK hi\r\n", b"c1 BAD what\r\n"))
    assert outcome.to_client.startswith(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] hi\r\n")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"a noop", b"a OK NOOP completed\r\n"),
        (b"a login user pass", b"a NO [PRIVACYREQUIRED] Logging in needs TLS: issue STARTTLS first\r\n"),
        (b"a LOGIN {4}", b"a NO [PRIVACYREQUIRED] Logging in needs TLS: issue STARTTLS first\r\n"),
        (b"A1 AUTHENTICATE PLAIN", b"A1 NO [PRIVACYREQUIRED] Logging in needs TLS: issue STARTTLS first\r\n"),
        (b"a ID NIL", b"a BAD Not before TLS: issue STARTTLS first\r\n"),
        (b"a SELECT INBOX", b"a BAD Not before TLS: issue STARTTLS first\r\n"),
        (b"a STARTTLS now", b"a BAD Not before TLS: issue STARTTLS first\r\n"),
        (b"hello", b"* BAD A tag and a command are expected\r\n"),
        (b"", b"* BAD A tag and a command are expected\r\n"),
        (b"+ NOOP", b"* BAD A tag and a command are expected\r\n"),
        (b"a\x00 NOOP", b"* BAD A tag and a command are expected\r\n"),
        (b"t" * 65 + b" NOOP", b"* BAD A tag and a command are expected\r\n"),
    ],
)
def test_what_a_client_may_say_before_tls(command: bytes, answer: bytes) -> None:
    outcome = offer(command + b"\r\n", b"z STARTTLS\r\n")
    assert outcome.error is None
    assert outcome.to_client == OPENING + answer + b"z OK Begin TLS negotiation\r\n"
    assert outcome.to_server == b""


@pytest.mark.parametrize("literal", [b"{4+}", b"{4-}"])
def test_a_password_that_comes_unasked_is_not_read_as_a_command(literal: bytes) -> None:
    outcome = offer(b"a LOGIN user " + literal + b"\r\npass\r\n")
    assert outcome.to_client.endswith(b"* BYE Issue STARTTLS first\r\n")
    assert outcome.left[Side.CLIENT] == b"pass\r\n"
    assert "pass" not in outcome.reason.replace("password", "")


def test_what_a_client_sends_behind_starttls_is_dropped() -> None:
    outcome = offer(b"a STARTTLS\r\nb LOGIN injected pass\r\n")
    assert outcome.discarded[Side.CLIENT] == b"b LOGIN injected pass\r\n"
    assert outcome.to_client.endswith(b"a OK Begin TLS negotiation\r\n")


def test_a_client_may_leave() -> None:
    outcome = offer(b"a LOGOUT\r\n")
    assert isinstance(outcome.error, LeftError)
    assert outcome.to_client.endswith(b"* BYE Logging out\r\na OK Logged out\r\n")
    assert outcome.to_server == b"c9 LOGOUT\r\n"


@pytest.mark.parametrize("greeting", [b"* PREAUTH hello\r\n", b"+OK hello\r\n", b"\r\n"])
def test_a_backend_that_is_no_backend_is_told_as_bye(greeting: bytes) -> None:
    outcome = offer(b"a STARTTLS\r\n", server=(greeting,))
    assert outcome.to_client == b"* BYE [UNAVAILABLE] Service not available, closing the connection\r\n"


def test_a_backend_that_refuses_is_passed_on() -> None:
    assert offer(server=(b"* BYE too many users\r\n",)).to_client == b"* BYE too many users\r\n"


def test_a_backend_that_cannot_be_reached_is_told_as_bye() -> None:
    outcome = play(before("imap", client=False), reachable=False)
    assert outcome.to_client == b"* BYE [UNAVAILABLE] Service not available, closing the connection\r\n"


def test_a_client_that_goes_on_without_tls_is_sent_away() -> None:
    outcome = offer(*[b"a NOOP\r\n"] * (COMMANDS + 10))
    assert outcome.to_client.endswith(b"* BYE Too many commands without STARTTLS\r\n")
