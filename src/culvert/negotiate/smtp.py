"""SMTP with STARTTLS (RFC 3207): the client end, which can also authenticate (RFC 4954), and the server end.

The client end keeps the server's greeting and hands it on when TLS stands, so that the local client sees one
greeting and begins with its own EHLO inside TLS. A refusal it hears of in our words and as temporary: the
server's own were said in clear, and a permanent one would send the mail back.

The server end hands on the backend's greeting and answers for it until TLS stands: the backend hears nothing
of the client before its second EHLO.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Generator
from typing import Any

from culvert.config.model import ProtocolOptions
from culvert.negotiate.replies import (
    COMMAND_LIMIT,
    COMMANDS,
    Reply,
    ask,
    begin_tls,
    read_reply,
    too_many_commands,
)
from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    LeftError,
    Line,
    NegotiationError,
    Note,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    Step,
    nothing,
    telling,
)

_DEFAULT_NAME = "localhost"
_UNAVAILABLE = b"421 4.4.0 The server cannot be reached in the secure way that is asked for\r\n"
_BACKEND_FAILED = b"421 4.3.2 Service not available, closing transmission channel\r\n"
_AUTH_LINE = 510
"""Longest AUTH command that may carry its first response along (RFC 4954, 4; without CRLF)."""

_ANSWERS = {
    b"NOOP": b"250 2.0.0 OK\r\n",
    b"RSET": b"250 2.0.0 OK\r\n",
    b"STARTTLS": b"501 5.5.4 STARTTLS takes no parameters\r\n",
    b"": b"500 5.5.2 A command is missing\r\n",
}
"""To what may be said before TLS, beside EHLO, HELO and QUIT."""

_CODE = re.compile(rb"[2-5][0-9]{2}[ -]")
_NAME = re.compile(rb"[A-Za-z0-9_.:\[\]-]{1,255}")


def client(options: ProtocolOptions) -> Protocol:
    """Ask the server for TLS, and log in where there are a user and a password."""
    name = (options.host or _DEFAULT_NAME).encode()

    def before(_: Ends) -> Script:
        return telling(_ask_for_tls(name), _UNAVAILABLE)

    def after(_: Ends, secured: Secured) -> Script:
        return telling(_log_in(name, options, secured.carried), _UNAVAILABLE)

    return Protocol(before, after, _UNAVAILABLE)


def server(_: ProtocolOptions) -> Protocol:
    """Offer STARTTLS in the backend's place."""
    return Protocol(lambda _: telling(_offer_tls(), _BACKEND_FAILED), nothing)


# --- the client end ---


def _ask_for_tls(name: bytes) -> Script:
    """Returns the server's greeting."""
    yield Connect()
    greeting = yield from read_reply()
    if greeting.code != 220:
        raise NegotiationError(f"the server refused the connection: {greeting}")
    if b"STARTTLS" not in (yield from _extensions(name)):
        raise NegotiationError("the server offers no STARTTLS")
    reply = yield from ask(b"STARTTLS")
    if reply.code != 220:
        raise NegotiationError(f"the server refused STARTTLS: {reply}")
    yield Discard(Side.SERVER)
    return greeting


def _extensions(name: bytes) -> Generator[Step, Any, dict[bytes, bytes]]:
    """What the server offers in answer to EHLO, by its keywords in upper case (RFC 5321, 4.1.1.1)."""
    reply = yield from ask(b"EHLO " + name)
    if reply.code != 250:
        raise NegotiationError(f"the server refused EHLO: {reply}")
    found: dict[bytes, bytes] = {}
    for text in reply.texts[1:]:
        # "AUTH=PLAIN LOGIN" is how AUTH was written before it was a standard.
        keyword, _, parameters = text.upper().replace(b"=", b" ", 1).strip().partition(b" ")
        found[keyword] = found.get(keyword, b"") + b" " + parameters
    return found


def _log_in(name: bytes, options: ProtocolOptions, greeting: Reply) -> Script:
    if options.username is not None and options.password is not None:
        offered = (yield from _extensions(name)).get(b"AUTH", b"").split()
        usual = "login" if b"LOGIN" in offered and b"PLAIN" not in offered else "plain"
        way = options.authentication or usual
        if way.upper().encode() not in offered:
            raise NegotiationError(f"the server does not offer AUTH {way.upper()}")
        secrets = _Secrets(options.username.encode(), options.password.encode())
        yield from (secrets.login() if way == "login" else secrets.plain())
        yield Note(f"SMTP: logged in by AUTH {way.upper()}")
    yield Send(Side.CLIENT, greeting.wire)


class _Secrets:
    """What proves the user. None of it is in an error, whatever the server repeats in its words."""

    def __init__(self, username: bytes, password: bytes) -> None:
        self._username, self._password = username, password
        self._response = b"\0" + username + b"\0" + password

    def plain(self) -> Generator[Step, Any, None]:
        """RFC 4616."""
        response = base64.b64encode(self._response)
        command = b"AUTH PLAIN " + response
        if len(command) <= _AUTH_LINE:
            yield from self._ask(command, 235)
            return
        yield from self._ask(b"AUTH PLAIN", 334)
        yield from self._ask(response, 235)

    def login(self) -> Generator[Step, Any, None]:
        """The server asks for the name and then for the password, whatever words it has for that."""
        yield from self._ask(b"AUTH LOGIN", 334)
        yield from self._ask(base64.b64encode(self._username), 334)
        yield from self._ask(base64.b64encode(self._password), 235)

    def _ask(self, command: bytes, expected: int) -> Generator[Step, Any, None]:
        reply = yield from ask(command, self._hide)
        if reply.code != expected:
            raise NegotiationError(f"the server refused the login: {reply}")

    def _hide(self, line: bytes) -> bytes:
        number = _CODE.match(line)
        code = number[0] if number else b""
        text = line[len(code) :]
        for secret in (self._response, self._password, self._username):
            for form in (base64.b64encode(secret), secret):
                text = text.replace(form, b"***")
        return code + text


# --- the server end ---


def _offer_tls() -> Script:
    yield Connect()
    greeting = yield from read_reply()
    if greeting.code != 220:
        answer = greeting.wire if greeting.code >= 400 else None
        raise NegotiationError(f"the server refused the connection: {greeting}", answer)
    yield Send(Side.CLIENT, greeting.wire)
    name = _host(greeting)
    for _ in range(COMMANDS):
        line = yield Line(Side.CLIENT, COMMAND_LIMIT)
        verb, _, argument = line.strip().partition(b" ")
        match verb.upper():
            case b"STARTTLS" if not argument:
                yield from begin_tls(b"220 2.0.0 Ready to start TLS\r\n")
                return
            case b"QUIT":
                yield Send(Side.SERVER, b"QUIT\r\n")
                raise LeftError("QUIT", b"221 2.0.0 " + name + b" closing connection\r\n")
            case command:
                yield Send(Side.CLIENT, _answer(command, argument, name))
    raise too_many_commands(b"421 4.7.0 Too many commands without STARTTLS\r\n")


def _answer(command: bytes, argument: bytes, name: bytes) -> bytes:
    if command in (b"EHLO", b"HELO"):
        if not argument:
            return b"501 5.5.4 " + command + b" needs a name\r\n"
        return b"250-" + name + b"\r\n250 STARTTLS\r\n" if command == b"EHLO" else b"250 " + name + b"\r\n"
    return _ANSWERS.get(command, b"530 5.7.0 Must issue a STARTTLS command first\r\n")  # RFC 3207, 4


def _host(greeting: Reply) -> bytes:
    """The name that the backend greets with."""
    name = greeting.texts[0].partition(b" ")[0]
    return name if _NAME.fullmatch(name) else _DEFAULT_NAME.encode()
