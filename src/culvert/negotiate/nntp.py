"""NNTP with STARTTLS (RFC 4642), the client end: the greeting reaches the local client when TLS stands."""

from __future__ import annotations

from culvert.config.model import ProtocolOptions
from culvert.negotiate.replies import ask, read_reply
from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    NegotiationError,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    telling,
)

_UNAVAILABLE = b"400 The server cannot be reached in the secure way that is asked for\r\n"  # RFC 3977, 3.2.1
_GREETINGS = (200, 201)
"""Posting allowed, and not allowed (RFC 3977, 5.1)."""


def client(_: ProtocolOptions) -> Protocol:
    """Ask the server for TLS."""
    return Protocol(lambda _: telling(_ask_for_tls(), _UNAVAILABLE), _pass_greeting, _UNAVAILABLE)


def _ask_for_tls() -> Script:
    """Returns the server's greeting."""
    yield Connect()
    greeting = yield from read_reply()
    if greeting.code not in _GREETINGS:
        raise NegotiationError(f"the server refused the connection: {greeting}")
    reply = yield from ask(b"STARTTLS")
    if reply.code != 382:
        raise NegotiationError(f"the server refused STARTTLS: {reply}")
    yield Discard(Side.SERVER)
    return greeting


def _pass_greeting(_: Ends, secured: Secured) -> Script:
    yield Send(Side.CLIENT, secured.carried.wire)
