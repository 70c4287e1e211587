"""IMAP with STARTTLS (RFC 9051, 6.2.1; RFC 2595): the client end and the server end.

The client end hands the greeting on when TLS stands, without its response code: what the server said of
itself in clear (capabilities, a referral, an alert) is not to be believed. A greeting that says that the
client is logged in already leaves no place for STARTTLS, and is refused (RFC 9051, 11.1).

The server end answers in the backend's place until TLS stands. It shows the backend's capabilities with
STARTTLS and LOGINDISABLED, and without those that lead to a login.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import Any

from culvert.config.model import ProtocolOptions
from culvert.negotiate.replies import (
    COMMAND_LIMIT,
    COMMANDS,
    REPLY_LINES,
    begin_tls,
    quoted,
    read_line,
    too_many_commands,
)
from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    LeftError,
    Line,
    NegotiationError,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    Step,
    nothing,
    telling,
)

_UNAVAILABLE = b"* BYE [UNAVAILABLE] The server cannot be reached in the secure way that is asked for\r\n"
_BACKEND_FAILED = b"* BYE [UNAVAILABLE] Service not available, closing the connection\r\n"  # RFC 5530, 3

_GREETING = re.compile(rb"\* (OK|PREAUTH|BYE)(?: \[([^\]]*)\])?(?: (.*))?", re.IGNORECASE)
_COMMAND = re.compile(rb"([!#$&',-\[\]^-z|}~.]{1,64}) ([A-Za-z]+)(?: (.*))?", re.DOTALL)
"""A tag, of characters that IMAP has for it (RFC 9051, 9), a command, and what belongs to it."""

_UNASKED_LITERAL = re.compile(rb".*\{[0-9]+[+-]\}", re.DOTALL)
"""The end of a line behind which a client sends bytes without having been asked to (RFC 7888)."""

_NOT_IN_CLEAR = frozenset({b"SASL-IR", b"LOGINDISABLED", b"STARTTLS", b"LITERAL+", b"LITERAL-"})
_LOGINS = frozenset({b"LOGIN", b"AUTHENTICATE"})
_LEAST = [b"IMAP4rev1"]


def client(_: ProtocolOptions) -> Protocol:
    """Ask the server for TLS."""
    return Protocol(lambda _: telling(_ask_for_tls(), _UNAVAILABLE), _pass_greeting, _UNAVAILABLE)


def server(_: ProtocolOptions) -> Protocol:
    """Offer STARTTLS in the backend's place."""
    return Protocol(lambda _: telling(_offer_tls(), _BACKEND_FAILED), nothing)


class _Greeting:
    """A server's first line: its response code, and the text behind that.

    The client hears a refusal in the words of a server that is `trusted`, the backend.
    """

    def __init__(self, line: bytes, *, trusted: bool) -> None:
        match = _GREETING.fullmatch(line)
        if match is None:
            raise NegotiationError(f"the server does not speak IMAP, it said {quoted(line)}")
        if match[1].upper() == b"BYE":
            answer = line + b"\r\n" if trusted else None
            raise NegotiationError(f"the server refused the connection: {quoted(line)}", answer)
        if match[1].upper() == b"PREAUTH":
            raise NegotiationError(f"the server greets as if after a login, without TLS: {quoted(line)}")
        self.code: bytes = match[2] or b""
        self.text: bytes = match[3] or b"ready"

    @property
    def capabilities(self) -> list[bytes] | None:
        """Those in the response code, where it has them."""
        name, *rest = self.code.split() or [b""]
        return rest if name.upper() == b"CAPABILITY" else None


# --- the client end ---


def _ask_for_tls() -> Script:
    """Returns the text of the server's greeting."""
    yield Connect()
    greeting = _Greeting((yield from read_line()), trusted=False)
    offered, answer = yield from _ask(b"c1 CAPABILITY")
    if b"STARTTLS" not in (name.upper() for name in offered):
        raise NegotiationError(f"the server offers no STARTTLS: {quoted(answer)}")
    _, answer = yield from _ask(b"c2 STARTTLS")
    if answer.split()[1].upper() != b"OK":
        raise NegotiationError(f"the server refused STARTTLS: {quoted(answer)}")
    yield Discard(Side.SERVER)
    return greeting.text


def _ask(command: bytes) -> Generator[Step, Any, tuple[list[bytes], bytes]]:
    """Give a command that has a tag. Returns the capabilities that were told, and the answer to it."""
    yield Send(Side.SERVER, command + b"\r\n")
    tag = command.split(b" ", 1)[0]
    told: list[bytes] = []
    for _ in range(REPLY_LINES):
        line = yield from read_line()
        words = line.upper().split()
        if len(words) > 1 and words[0] == tag.upper():
            return told, line
        if words[:2] == [b"*", b"CAPABILITY"]:
            told = line.split()[2:]
        elif words[:2] == [b"*", b"BYE"]:
            raise NegotiationError(f"the server closes the connection: {quoted(line)}")
        elif words[:1] != [b"*"]:
            raise NegotiationError(f"the server does not speak IMAP, it said {quoted(line)}")
    raise NegotiationError(f"the server sent more than {REPLY_LINES} lines in answer to one command")


def _pass_greeting(_: Ends, secured: Secured) -> Script:
    yield Send(Side.CLIENT, b"* OK " + secured.carried + b"\r\n")


# --- the server end ---


def _offer_tls() -> Script:
    yield Connect()
    greeting = _Greeting((yield from read_line()), trusted=True)
    offered = greeting.capabilities
    if offered is None:
        offered = yield from _capabilities()
    shown = b"CAPABILITY " + b" ".join(_in_clear(offered))
    yield Send(Side.CLIENT, b"* OK [" + shown + b"] " + greeting.text + b"\r\n")
    for _ in range(COMMANDS):
        line = yield Line(Side.CLIENT, COMMAND_LIMIT)
        match = _COMMAND.fullmatch(line.rstrip())
        if _UNASKED_LITERAL.fullmatch(line.rstrip()):
            raise NegotiationError(
                "the client sends a literal, which may be a password, before TLS",
                b"* BYE Issue STARTTLS first\r\n",
            )
        if match is None:
            yield Send(Side.CLIENT, b"* BAD A tag and a command are expected\r\n")
            continue
        tag, command = match[1], match[2].upper()
        if command == b"STARTTLS" and not match[3]:
            yield from begin_tls(tag + b" OK Begin TLS negotiation\r\n")
            return
        if command == b"LOGOUT":
            yield Send(Side.SERVER, b"c9 LOGOUT\r\n")
            raise LeftError("LOGOUT", b"* BYE Logging out\r\n" + tag + b" OK Logged out\r\n")
        yield Send(Side.CLIENT, _answer(tag, command, shown))
    raise too_many_commands(b"* BYE Too many commands without STARTTLS\r\n")


def _answer(tag: bytes, command: bytes, shown: bytes) -> bytes:
    if command == b"CAPABILITY":
        return b"* " + shown + b"\r\n" + tag + b" OK Capability completed\r\n"
    if command == b"NOOP":
        return tag + b" OK NOOP completed\r\n"
    if command in _LOGINS:
        return tag + b" NO [PRIVACYREQUIRED] Logging in needs TLS: issue STARTTLS first\r\n"
    return tag + b" BAD Not before TLS: issue STARTTLS first\r\n"


def _capabilities() -> Generator[Step, Any, list[bytes]]:
    """What the backend offers."""
    offered, answer = yield from _ask(b"c1 CAPABILITY")
    return offered if answer.split()[1].upper() == b"OK" else []


def _in_clear(offered: Iterable[bytes]) -> list[bytes]:
    """The capabilities before TLS: those of a login are left out."""
    kept = [
        name
        for name in offered
        if name.upper() not in _NOT_IN_CLEAR and not name.upper().startswith(b"AUTH=")
    ]
    return (kept or _LEAST) + [b"STARTTLS", b"LOGINDISABLED"]
