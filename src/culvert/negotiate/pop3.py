"""POP3 with STLS (RFC 2595): the client end and the server end.

The server's greeting reaches the local client when TLS stands; its time stamp serves APOP inside TLS. The
server end asks the backend for its capabilities and nothing else before TLS.
"""

from __future__ import annotations

from collections.abc import Generator
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

_UNAVAILABLE = b"-ERR [SYS/TEMP] The server cannot be reached in the secure way that is asked for\r\n"
_BACKEND_FAILED = b"-ERR [SYS/TEMP] Service not available, closing the connection\r\n"  # RFC 3206, 4

_LOGINS = frozenset({b"USER", b"PASS", b"APOP", b"AUTH"})
_NOT_IN_CLEAR = frozenset({b"USER", b"SASL", b"STLS"})
"""Capabilities of the backend that are not its own, or not there, before TLS."""


def client(_: ProtocolOptions) -> Protocol:
    """Ask the server for TLS."""
    return Protocol(lambda _: telling(_ask_for_tls(), _UNAVAILABLE), _pass_greeting, _UNAVAILABLE)


def server(_: ProtocolOptions) -> Protocol:
    """Offer STLS in the backend's place."""
    return Protocol(lambda _: telling(_offer_tls(), _BACKEND_FAILED), nothing)


def _status() -> Generator[Step, Any, bytes]:
    """A line of the server's with its verdict: +OK or -ERR (RFC 1939, 3)."""
    line = yield from read_line()
    if line.split(b" ", 1)[0].upper() not in (b"+OK", b"-ERR"):
        raise NegotiationError(f"the server does not speak POP3, it said {quoted(line)}")
    return line


def _ask_for_tls() -> Script:
    """Returns the server's greeting."""
    yield Connect()
    greeting = yield from _status()
    if not greeting.startswith(b"+"):
        raise NegotiationError(f"the server refused the connection: {quoted(greeting)}")
    yield Send(Side.SERVER, b"STLS\r\n")
    answer = yield from _status()
    if not answer.startswith(b"+"):
        raise NegotiationError(f"the server refused STLS: {quoted(answer)}")
    yield Discard(Side.SERVER)
    return greeting


def _pass_greeting(_: Ends, secured: Secured) -> Script:
    yield Send(Side.CLIENT, secured.carried + b"\r\n")


def _offer_tls() -> Script:
    yield Connect()
    greeting = yield from _status()
    if not greeting.startswith(b"+"):
        raise NegotiationError(f"the server refused the connection: {quoted(greeting)}", greeting + b"\r\n")
    yield Send(Side.CLIENT, greeting + b"\r\n")
    for _ in range(COMMANDS):
        line = yield Line(Side.CLIENT, COMMAND_LIMIT)
        command = line.strip().split(b" ", 1)[0].upper()
        if command == b"STLS":
            yield from begin_tls(b"+OK Begin TLS negotiation\r\n")
            return
        if command == b"CAPA":
            yield Send(Side.CLIENT, (yield from _capabilities()))
        elif command == b"QUIT":
            yield Send(Side.SERVER, b"QUIT\r\n")
            raise LeftError("QUIT", b"+OK Bye\r\n")
        elif command in _LOGINS:
            yield Send(Side.CLIENT, b"-ERR Logging in needs TLS: issue STLS first\r\n")
        else:
            yield Send(Side.CLIENT, b"-ERR Not before TLS: issue STLS first\r\n")
    raise too_many_commands(b"-ERR Too many commands without STLS\r\n")


def _capabilities() -> Generator[Step, Any, bytes]:
    """The answer to CAPA before TLS (RFC 2449): what the backend has, without its logins and with STLS."""
    yield Send(Side.SERVER, b"CAPA\r\n")
    offered = [b"STLS"]
    if (yield from _status()).startswith(b"+"):
        for _ in range(REPLY_LINES):
            line = yield from read_line()
            if line == b".":
                break
            if line.split(b" ", 1)[0].upper() not in _NOT_IN_CLEAR:
                offered.append(line)
        else:
            raise NegotiationError(f"the server sent a list of more than {REPLY_LINES} lines")
    return b"+OK Capability list follows\r\n" + b"".join(line + b"\r\n" for line in (*offered, b"."))
