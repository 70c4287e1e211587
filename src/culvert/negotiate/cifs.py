"""CIFS: the extension by which Samba 2 asked for TLS in NetBIOS's session service (RFC 1002, 4.3).

A client that opens a session is answered with a refusal of its own code, and TLS begins on the same
connection. Samba 3 dropped it; what is left are such servers, and stunnel at either end.
"""

from __future__ import annotations

from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    Exactly,
    NegotiationError,
    Protocol,
    Script,
    Send,
    Side,
    connecting,
    nothing,
)

REQUEST_LIMIT = 252
"""Most bytes behind a request's header: two names of NetBIOS, of 34 bytes each or up to 126 with a scope."""

_REQUEST, _POSITIVE, _NEGATIVE, _RETARGET = 0x81, 0x82, 0x83, 0x84
_USE_TLS = 0x8E
_UNSPECIFIED = 0x8F

_ERRORS = {
    0x80: "not listening on the called name",
    0x81: "not listening for the calling name",
    0x82: "the called name is not present",
    0x83: "insufficient resources",
    0x8F: "unspecified error",
}

EMPTY_REQUEST = bytes((_REQUEST, 0, 0, 0))
"""A session request without names: the server only has to say that it wants TLS."""


def _negative(code: int) -> bytes:
    return bytes((_NEGATIVE, 0, 0, 1, code))


def client_before(_: Ends) -> Script:
    """Connect, and have the server ask for TLS."""
    yield Connect()
    yield Send(Side.SERVER, EMPTY_REQUEST)
    kind, *size = yield Exactly(Side.SERVER, 4)
    if kind in (_POSITIVE, _RETARGET):
        raise NegotiationError("the server opens a NetBIOS session without TLS")
    if kind != _NEGATIVE or bytes(size) != b"\0\0\x01":
        raise NegotiationError("the server does not speak NetBIOS's session service")
    code = (yield Exactly(Side.SERVER, 1))[0]
    if code != _USE_TLS:
        words = _ERRORS.get(code, f"error 0x{code:02x}")
        raise NegotiationError(f"the server refuses the NetBIOS session, and not for want of TLS: {words}")
    yield Discard(Side.SERVER)


def server_before(_: Ends) -> Script:
    """Answer a client's session request with the wish for TLS."""
    kind, *size = yield Exactly(Side.CLIENT, 4)
    if kind != _REQUEST:
        yield Send(Side.CLIENT, _negative(_UNSPECIFIED))
        raise NegotiationError("the client does not open a NetBIOS session")
    length = int.from_bytes(size, "big")
    if length > REQUEST_LIMIT:
        yield Send(Side.CLIENT, _negative(_UNSPECIFIED))
        raise NegotiationError(f"the client's session request has more than {REQUEST_LIMIT} bytes of names")
    yield Exactly(Side.CLIENT, length)
    yield Discard(Side.CLIENT)
    yield Send(Side.CLIENT, _negative(_USE_TLS))


CLIENT = Protocol(client_before, nothing)
SERVER = Protocol(server_before, connecting)
