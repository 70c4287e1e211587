"""SMTP with STARTTLS: each end's script, and what it tells whom when something is not as it should be."""

from __future__ import annotations

import base64

import pytest

from culvert.negotiate.replies import COMMANDS, REPLY_LINES, Reply
from culvert.negotiate.script import LINE_LIMIT, LeftError, Side

from .dialogue import Outcome, play
from .services import after, before

GREETING = b"220 mail.example.com ESMTP\r\n"
EHLO = b"250-mail.example.com\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"
READY = b"220 go ahead\r\n"
CARRIED = Reply(220, (b"220 mail.example.com ESMTP",))
LOGIN = ("protocolUsername = user@example.com", "protocolPassword = s3cret w0rd")


def ask(*server: bytes, options: tuple[str, ...] = ()) -> Outcome:
    """The client end before the handshake."""
    return play(before("smtp", *options, client=True), server=server)


def log_in(*server: bytes, options: tuple[str, ...] = ()) -> Outcome:
    """The client end after it."""
    return play(after("smtp", CARRIED, *LOGIN, *options, client=True), server=server)


def offer(*client: bytes, greeting: bytes = GREETING) -> Outcome:
    """The server end."""
    return play(before("smtp", client=False), client=client, server=[greeting])


# --- the client end ---


def test_it_asks_for_tls_and_keeps_the_greeting() -> None:
    outcome = ask(GREETING, EHLO, READY)
    assert outcome.error is None
    assert outcome.to_server == b"EHLO localhost\r\nSTARTTLS\r\n"
    assert outcome.to_client == b""
    assert outcome.returned == CARRIED


def test_the_client_gets_the_greeting_inside_tls() -> None:
    outcome = play(after("smtp", CARRIED, client=True))
    assert outcome.to_client == GREETING
    assert outcome.to_server == b""


def test_protocol_host_is_the_name_to_greet_with() -> None:
    outcome = ask(GREETING, EHLO, READY, options=("protocolHost = relay.example.com",))
    assert outcome.to_server.startswith(b"EHLO relay.example.com\r\n")


def test_a_greeting_of_several_lines_is_handed_on_whole() -> None:
    outcome = ask(b"220-one\r\n220-two\r\n220 three\r\n", EHLO, READY)
    handed_on = play(after("smtp", outcome.returned, client=True))
    assert handed_on.to_client == b"220-one\r\n220-two\r\n220 three\r\n"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ([b"554 go away\r\n"], 'the server refused the connection: "554 go away"'),
        ([b"421-busy\r\n421 later\r\n"], 'the server refused the connection: "421-busy / 421 later"'),
        ([GREETING, b"502 no EHLO\r\n"], 'the server refused EHLO: "502 no EHLO"'),
        ([GREETING, b"250 mail.example.com\r\n"], "the server offers no STARTTLS"),
        ([GREETING, b"250-x\r\n250 XSTARTTLS\r\n"], "the server offers no STARTTLS"),
        ([GREETING, b"250 STARTTLS\r\n"], "the server offers no STARTTLS"),
        ([GREETING, EHLO, b"454 4.7.0 TLS later\r\n"], 'the server refused STARTTLS: "454 4.7.0 TLS later"'),
        ([GREETING, b"421 4.3.2 shutting down\r\n"], 'refused EHLO: "421 4.3.2 shutting down"'),
        ([b"* OK IMAP4 ready\r\n"], 'does not speak the protocol, it said "* OK IMAP4 ready"'),
        ([b"220-one\r\n250 two\r\n"], 'does not speak the protocol, it said "250 two"'),
        ([b"220-x\r\n" * REPLY_LINES], f"a reply of more than {REPLY_LINES} lines"),
        ([b"220" + b" " * LINE_LIMIT + b"\r\n"], f"a line of more than {LINE_LIMIT} bytes"),
        ([b"220 one\r250 two\r\n"], "the server sent a line with a control character"),
        ([b"220 one\x00\r\n"], "the server sent a line with a control character"),
        ([GREETING, b"250-mail"], "the server closed the connection"),
        ([], "the server closed the connection"),
    ],
)
def test_what_the_server_refuses_is_told_in_its_words(server: list[bytes], reason: str) -> None:
    outcome = ask(*server)
    assert reason in outcome.reason
    assert outcome.to_client.startswith(b"421 ")
    assert outcome.to_client.count(b"\r\n") == 1


def test_a_refusal_said_in_clear_is_temporary_for_the_client() -> None:
    """Whoever stands in the way could have said it, to have the mail sent back."""
    assert ask(b"554-no\r\n554 mail here\r\n").to_client.startswith(b"421 4.4.0 ")


def test_a_client_of_an_unreachable_server_may_come_again() -> None:
    outcome = play(before("smtp", client=True), reachable=False)
    assert outcome.to_client.startswith(b"421 ")


def test_what_the_server_sends_ahead_of_tls_is_dropped() -> None:
    outcome = ask(GREETING, EHLO, READY + b"250 injected\r\n")
    assert outcome.error is None
    assert outcome.discarded[Side.SERVER] == b"250 injected\r\n"


def test_it_logs_in_by_plain() -> None:
    outcome = log_in(b"250-x\r\n250 AUTH LOGIN PLAIN\r\n", b"235 welcome\r\n")
    response = base64.b64encode(b"\0user@example.com\0s3cret w0rd")
    assert outcome.to_server == b"EHLO localhost\r\nAUTH PLAIN " + response + b"\r\n"
    assert outcome.to_client == GREETING


def test_it_logs_in_by_login_where_asked() -> None:
    outcome = log_in(
        b"250-x\r\n250 AUTH LOGIN PLAIN\r\n",
        *(b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", b"235 welcome\r\n"),
        options=("protocolAuthentication = login",),
    )
    said = [b"EHLO localhost", b"AUTH LOGIN", *map(base64.b64encode, (b"user@example.com", b"s3cret w0rd"))]
    assert outcome.to_server == b"".join(line + b"\r\n" for line in said)
    assert outcome.to_client == GREETING


@pytest.mark.parametrize("offered", [b"AUTH LOGIN", b"AUTH=LOGIN", b"auth cram-md5 login"])
def test_it_takes_the_one_way_that_the_server_has(offered: bytes) -> None:
    outcome = log_in(b"250-x\r\n250 " + offered + b"\r\n", b"334 x\r\n", b"334 y\r\n", b"235 welcome\r\n")
    assert outcome.error is None
    assert b"AUTH LOGIN\r\n" in outcome.to_server


def test_a_long_response_has_a_line_of_its_own() -> None:
    options = (f"protocolPassword = {'p' * 400}",)
    outcome = log_in(b"250-x\r\n250 AUTH PLAIN\r\n", b"334 \r\n", b"235 welcome\r\n", options=options)
    assert outcome.error is None
    assert b"\r\nAUTH PLAIN\r\n" in outcome.to_server


@pytest.mark.parametrize(
    ("options", "server", "reason"),
    [
        ((), [b"250-x\r\n250 SIZE\r\n"], "the server does not offer AUTH PLAIN"),
        (("protocolAuthentication = login",), [b"250-x\r\n250 AUTH PLAIN\r\n"], "does not offer AUTH LOGIN"),
        ((), [b"250-x\r\n250 AUTH PLAIN\r\n", b"535 5.7.8 wrong\r\n"], 'the login: "535 5.7.8 wrong"'),
        ((), [b"503 again\r\n"], 'the server refused EHLO: "503 again"'),
    ],
)
def test_a_login_that_fails_keeps_the_mail_in_the_clients_queue(
    options: tuple[str, ...], server: list[bytes], reason: str
) -> None:
    outcome = log_in(*server, options=options)
    assert reason in outcome.reason
    assert outcome.to_client.startswith(b"421 ")


SECRETS = [b"\0user@example.com\0s3cret w0rd", b"s3cret w0rd", b"user@example.com"]
FORMS = [*SECRETS, *map(base64.b64encode, SECRETS)]


@pytest.mark.parametrize("way", ["plain", "login"])
@pytest.mark.parametrize("before", [b"500 unknown: ", b"500-", b"", b"x" * 220, b"\x1b"])
@pytest.mark.parametrize("form", FORMS)
def test_credentials_that_a_server_repeats_are_not_told(way: str, before: bytes, form: bytes) -> None:
    outcome = log_in(
        b"250-x\r\n250 AUTH PLAIN LOGIN\r\n",
        *([b"334 x\r\n"] if way == "login" else []),
        before + form + b"\r\n",
        options=(f"protocolAuthentication = {way}",),
    )
    assert outcome.error is not None
    for part in (form, form[:12], form[-12:]):
        assert part.decode() not in outcome.reason
        assert part not in outcome.to_client


def test_the_servers_words_stay_beside_what_is_taken_out_of_them() -> None:
    outcome = log_in(b"250-x\r\n250 AUTH PLAIN\r\n", b"535 no s3cret w0rd for you\r\n")
    assert outcome.reason == 'the server refused the login: "535 no *** for you"'


def test_a_password_like_a_number_does_not_hide_the_servers() -> None:
    outcome = log_in(b"250-x\r\n250 AUTH PLAIN\r\n", b"235 ok\r\n", options=("protocolPassword = 235",))
    assert outcome.error is None


# --- the server end ---


def test_it_offers_tls_in_the_backends_name() -> None:
    outcome = offer(b"EHLO client.example.com\r\n", b"STARTTLS\r\n")
    assert outcome.error is None
    assert outcome.to_client == (
        GREETING + b"250-mail.example.com\r\n250 STARTTLS\r\n220 2.0.0 Ready to start TLS\r\n"
    )
    assert outcome.to_server == b""


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"ehlo me", b"250-mail.example.com\r\n250 STARTTLS\r\n"),
        (b"HELO me", b"250 mail.example.com\r\n"),
        (b"EHLO", b"501 5.5.4 EHLO needs a name\r\n"),
        (b"NOOP", b"250 2.0.0 OK\r\n"),
        (b"rset", b"250 2.0.0 OK\r\n"),
        (b"STARTTLS now", b"501 5.5.4 STARTTLS takes no parameters\r\n"),
        (b"", b"500 5.5.2 A command is missing\r\n"),
        (b"MAIL FROM:<a@example.com>", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        (b"AUTH PLAIN AHVzZXIAcGFzcw==", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        (b"VRFY root", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        (b"GET / HTTP/1.1", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
        (b"\xff\x00", b"530 5.7.0 Must issue a STARTTLS command first\r\n"),
    ],
)
def test_what_a_client_may_say_before_tls(command: bytes, answer: bytes) -> None:
    outcome = offer(command + b"\r\n", b"STARTTLS\r\n")
    assert outcome.error is None
    assert outcome.to_client == GREETING + answer + b"220 2.0.0 Ready to start TLS\r\n"
    assert outcome.to_server == b""


def test_what_a_client_sends_behind_starttls_is_dropped() -> None:
    outcome = offer(b"STARTTLS\r\nMAIL FROM:<injected@example.com>\r\n")
    assert outcome.discarded[Side.CLIENT] == b"MAIL FROM:<injected@example.com>\r\n"
    assert outcome.to_client.endswith(b"220 2.0.0 Ready to start TLS\r\n")


def test_a_client_may_leave() -> None:
    outcome = offer(b"EHLO me\r\n", b"QUIT\r\n")
    assert isinstance(outcome.error, LeftError)
    assert outcome.to_client.endswith(b"221 2.0.0 mail.example.com closing connection\r\n")
    assert outcome.to_server == b"QUIT\r\n"


@pytest.mark.parametrize("greeting", [b"554 no service\r\n", b"421-we are\r\n421 full\r\n"])
def test_a_backend_that_refuses_is_passed_on(greeting: bytes) -> None:
    outcome = offer(greeting=greeting)
    assert outcome.to_client == greeting
    assert "the server refused the connection" in outcome.reason


def test_a_backend_that_cannot_be_reached_is_told_as_421() -> None:
    outcome = play(before("smtp", client=False), reachable=False)
    assert outcome.to_client.startswith(b"421 ")
    assert outcome.reason == "No more addresses to connect"


def test_a_client_that_goes_on_without_tls_is_sent_away() -> None:
    outcome = offer(*[b"NOOP\r\n"] * (COMMANDS + 10))
    assert outcome.to_client.endswith(b"421 4.7.0 Too many commands without STARTTLS\r\n")
    assert f"{COMMANDS} commands" in outcome.reason


@pytest.mark.parametrize("greeting", [b"220\r\n", b"220 \r\n", b"220 <script>\r\n", b"220-\r\n220 x\r\n"])
def test_a_backend_without_a_name_is_called_localhost(greeting: bytes) -> None:
    assert b"250-localhost\r\n" in offer(b"EHLO me\r\n", b"STARTTLS\r\n", greeting=greeting).to_client
