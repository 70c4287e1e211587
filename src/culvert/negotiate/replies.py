"""What the line-based protocols have in common: replies of a server, commands of a client, quotations."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from culvert.negotiate.script import Discard, Line, NegotiationError, Send, Side, Step

COMMAND_LIMIT = 2048
"""Most bytes of a command in clear. SMTP's have 512 without extensions (RFC 5321, 4.5.3.1.4), POP3's 255
(RFC 2449, 4); what IMAP's need before a login is shorter."""

COMMANDS = 64
"""Most commands that a client may give before it asks for TLS: it needs two or three."""

REPLY_LINES = 128
"""Most lines of one reply: those to EHLO, CAPABILITY and CAPA have a few dozen."""

QUOTED = 240
"""Most bytes of a peer's words in an error: the log cuts its lines at 1024."""

_NUMBERED = re.compile(rb"([1-5][0-9]{2})(?:([ -])(.*))?")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Reply(NamedTuple):
    """A reply that begins with a number, as SMTP's and NNTP's do. `lines` are whole, without their ends."""

    code: int
    lines: tuple[bytes, ...]

    def __str__(self) -> str:
        return quoted(b" / ".join(self.lines))

    @property
    def texts(self) -> list[bytes]:
        """The lines without their numbers."""
        return [line[4:] for line in self.lines]

    @property
    def wire(self) -> bytes:
        """The reply as it is sent."""
        return b"".join(line + b"\r\n" for line in self.lines)


def quoted(words: bytes) -> str:
    """A peer's own words for an error's text."""
    cut = words[:QUOTED] + (b"..." if len(words) > QUOTED else b"")
    return f'"{cut.decode("utf-8", "replace")}"'


def _as_it_is(line: bytes) -> bytes:
    return line


def read_line(hide: Callable[[bytes], bytes] = _as_it_is) -> Generator[Step, Any, bytes]:
    """A line of the server's, as `hide` leaves it.

    One with a control character is refused: what is a line end to one of its readers, a bare CR perhaps,
    would let whoever stands in the way put an answer of his own into a greeting that is handed on.
    """
    line: bytes = hide((yield Line(Side.SERVER)))
    if _CONTROL.search(line):
        raise NegotiationError(f"the server sent a line with a control character, {quoted(line)}")
    return line


def read_reply(hide: Callable[[bytes], bytes] = _as_it_is) -> Generator[Step, Any, Reply]:
    """The server's reply, of several lines where a hyphen follows the number (RFC 5321, 4.2.1)."""
    lines: list[bytes] = []
    while True:
        line = yield from read_line(hide)
        match = _NUMBERED.fullmatch(line)
        if match is None or (lines and lines[0][:3] != match[1]):
            raise NegotiationError(f"the server does not speak the protocol, it said {quoted(line)}")
        lines.append(line)
        if match[2] != b"-":
            return Reply(int(match[1]), tuple(lines))
        if len(lines) >= REPLY_LINES:
            raise NegotiationError(f"the server sent a reply of more than {REPLY_LINES} lines")


def ask(command: bytes, hide: Callable[[bytes], bytes] = _as_it_is) -> Generator[Step, Any, Reply]:
    """Give the server a command and read its reply; `hide` takes out what is not to be in an error."""
    yield Send(Side.SERVER, command + b"\r\n")
    return (yield from read_reply(hide))


def too_many_commands(answer: bytes) -> NegotiationError:
    """The client goes on without TLS for too long; `answer` is what it is told."""
    return NegotiationError(f"the client gave {COMMANDS} commands and did not ask for TLS", answer)


def begin_tls(go_ahead: bytes) -> Generator[Step, Any, None]:
    """Answer a client that asked for TLS: what it sent behind that could be anybody's (CVE-2011-0411)."""
    yield Discard(Side.CLIENT)
    yield Send(Side.CLIENT, go_ahead)
