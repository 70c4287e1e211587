"""PostgreSQL: SSLRequest, in both roles (PostgreSQL's documentation, "Message Flow" and "Message Formats").

A client's first packet is 8 bytes long where it asks for encryption: its own length, and a number in place of
a protocol version. The answer is one byte, `S` or `N`. Since PostgreSQL 17 a client may leave that out and
begin with TLS (`sslnegotiation=direct`); then its first byte is that of a handshake record.

Refusals are told as PostgreSQL tells them, in an ErrorResponse. Also the plain client of a client tunnel gets
one, since it speaks PostgreSQL; what it is told is our reason, and a server's own words reach the log alone:
whoever stands in the way can write them (CVE-2024-10977).
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any

from culvert.errors import BackendError
from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    Exactly,
    NegotiationError,
    Note,
    Peek,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    Step,
)

ERROR_LIMIT = 30000
"""Most bytes of an ErrorResponse that is taken for one: libpq draws the line there too. What claims to be
longer is the text of an older server, which has no length."""

TEXT_LIMIT = 1024
"""Most bytes of such a text; a log line is cut there anyway."""

SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102

# SQLSTATEs, from the documentation's appendix "PostgreSQL Error Codes". A libpq with several hosts goes on to
# the next one after 57P03.
NOT_AUTHORIZED = "28000"
PROTOCOL_VIOLATION = "08P01"
CANNOT_CONNECT_NOW = "57P03"
CONNECTION_FAILURE = "08006"

_PACKET = struct.Struct("!iI")
_TLS_HANDSHAKE = b"\x16"
_MAJOR_VERSIONS = (2, 3)


def error_response(state: str, message: str) -> bytes:
    """An ErrorResponse that ends the session."""
    text = message.replace("\0", "")
    fields = b"".join(f"{kind}{value}\0".encode() for kind, value in _fatal(state, text))
    return b"E" + struct.pack("!i", 4 + len(fields) + 1) + fields + b"\0"


def _fatal(state: str, message: str) -> tuple[tuple[str, str], ...]:
    return (("S", "FATAL"), ("V", "FATAL"), ("C", state), ("M", message))


def request(code: int) -> bytes:
    """One of the requests that have nothing but their number."""
    return _PACKET.pack(_PACKET.size, code)


_DECLINED = (request(GSSENC_REQUEST), request(SSL_REQUEST))


# --- the client's side ---


def client_before(_: Ends) -> Script:
    """Connect, and ask the server for TLS."""
    try:
        yield Connect()
    except BackendError:
        yield Send(Side.CLIENT, error_response(CONNECTION_FAILURE, "the server cannot be reached"))
        raise
    yield Send(Side.SERVER, request(SSL_REQUEST))
    match (yield Exactly(Side.SERVER, 1)):
        case b"S":
            yield Discard(Side.SERVER)
            return
        case b"N":
            reason = "the server does not take TLS connections (it answers N to SSLRequest)"
            words = ""
        case b"E":
            reason = "the server answers SSLRequest with an error"
            words = yield from _read_error()
        case _:
            reason = "the server does not speak PostgreSQL: it answers SSLRequest with neither S nor N"
            words = ""
    yield Send(Side.CLIENT, error_response(CONNECTION_FAILURE, reason))
    raise NegotiationError(f"{reason}: {words}" if words else reason)


def client_after(_: Ends, __: Secured) -> Script:
    """Pass the plain client's first packet on, and decline a wish for encryption in front of it.

    libpq asks by itself (sslmode=prefer); a server that has TLS already answers that with an error.
    """
    for _declined in range(len(_DECLINED) + 1):
        packet = yield Exactly(Side.CLIENT, _PACKET.size)
        if packet not in _DECLINED:
            yield Send(Side.SERVER, packet)
            return
        yield Send(Side.CLIENT, b"N")
    raise NegotiationError("the client asks for encryption over and over, where there is none to be had")


def _read_error() -> Generator[Step, Any, str]:
    """What stands behind an `E`: fields, or the text of a server that could not even begin."""
    head = yield Exactly(Side.SERVER, 4)
    size = int.from_bytes(head, "big")
    if 8 <= size <= ERROR_LIMIT:
        return error_words((yield Exactly(Side.SERVER, size - 4)))
    text = bytearray(head)
    while b"\0" not in text and len(text) < TEXT_LIMIT:
        text += yield Exactly(Side.SERVER, 1)
    return bytes(text).partition(b"\0")[0].decode("utf-8", "replace").strip()


def error_words(fields: bytes) -> str:
    """The severity, SQLSTATE and message of an ErrorResponse's fields, as far as they are there."""
    found: dict[int, str] = {}
    for field in fields.split(b"\0"):
        if not field:
            break
        found.setdefault(field[0], field[1:].decode("utf-8", "replace"))
    before = " ".join(found[kind] for kind in b"SC" if kind in found)
    message = found.get(ord("M"), "")[:TEXT_LIMIT]
    return f"{before}: {message}" if before and message else before or message


# --- the server's side ---


def server_before(_: Ends) -> Script:
    """Wait until the client asks for TLS, or begins with it."""
    if (yield Peek(Side.CLIENT)) == _TLS_HANDSHAKE:
        yield Note("The client begins with TLS, without an SSLRequest")
        return
    asked_for_gss = False
    while True:
        size, code = _PACKET.unpack((yield Exactly(Side.CLIENT, _PACKET.size)))
        if (size, code) == (_PACKET.size, SSL_REQUEST):
            break
        if (size, code) != (_PACKET.size, GSSENC_REQUEST) or asked_for_gss:
            yield from _refuse(code)
        asked_for_gss = True
        yield Send(Side.CLIENT, b"N")
    # What came behind the request would be taken for something said inside TLS (CVE-2021-23214).
    yield Discard(Side.CLIENT)
    yield Send(Side.CLIENT, b"S")


def _refuse(code: int) -> Script:
    if code == CANCEL_REQUEST:
        # It has no answer in the protocol. Nothing of a client that did not pass the handshake goes on.
        raise NegotiationError("the client asks in clear to cancel a query (CancelRequest): only TLS passes")
    if code >> 16 in _MAJOR_VERSIONS:
        state, reason = NOT_AUTHORIZED, "this server takes TLS connections only: set sslmode=require"
        logged = "the client begins a session in clear, without SSLRequest"
    else:
        state, reason = PROTOCOL_VIOLATION, "an SSLRequest was expected"
        logged = "the client does not speak PostgreSQL: it sent no SSLRequest"
    yield Send(Side.CLIENT, error_response(state, reason))
    raise NegotiationError(logged)


def server_after(_: Ends, __: Secured) -> Script:
    """Connect for a client that has passed, and tell it inside TLS where that fails."""
    try:
        yield Connect()
    except BackendError:
        message = "the database server cannot be reached at the moment"
        yield Send(Side.CLIENT, error_response(CANNOT_CONNECT_NOW, message))
        raise


CLIENT = Protocol(client_before, client_after)
SERVER = Protocol(server_before, server_after)
