"""OpenSSL's errors in one form: its own words for the log, a reason by which callers can tell them apart."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from culvert.errors import PeerError
from culvert.tls._openssl import lib, text

_SSL_LIBRARY = "SSL routines"

UNEXPECTED_EOF = "unexpected eof while reading"
"""OpenSSL's words for a peer that left in the middle; used as well where only the socket knows of it."""


@dataclass(frozen=True, slots=True)
class OpenSSLError:
    """One entry of OpenSSL's error queue."""

    code: int
    library: str
    reason: str

    def __str__(self) -> str:
        return f"error:{self.code:08X}:{self.library}::{self.reason}"


class TlsError(PeerError):
    """A TLS connection that cannot go on. `errors` is OpenSSL's queue, the first cause first."""

    def __init__(self, reason: str, errors: tuple[OpenSSLError, ...] = ()) -> None:
        super().__init__(reason)
        self.errors = errors

    def __str__(self) -> str:
        # What the TLS layer says of it is what people know and search for; below it may stand why.
        of_tls = (error for error in self.errors if error.library == _SSL_LIBRARY)
        first = next(of_tls, self.errors[0] if self.errors else None)
        return str(first) if first is not None else self.reason


class Cause(enum.Enum):
    """What a handshake failed for, in a few kinds that can be counted."""

    TIMEOUT = "timeout"
    CLOSED = "closed"
    CONNECTION = "connection"
    CERTIFICATE = "certificate"
    ALERT = "alert"
    VERSION = "version"
    CIPHER = "cipher"
    GROUP = "group"
    NO_TLS = "no TLS"
    OTHER = "other"


_CAUSES = {
    UNEXPECTED_EOF: Cause.CLOSED,
    "certificate verify failed": Cause.CERTIFICATE,
    "peer did not return a certificate": Cause.CERTIFICATE,
    "unsupported protocol": Cause.VERSION,
    "version too low": Cause.VERSION,
    "no protocols available": Cause.VERSION,
    "no shared cipher": Cause.CIPHER,
    "no ciphers available": Cause.CIPHER,
    "no suitable key share": Cause.GROUP,
    "no suitable groups": Cause.GROUP,
    "wrong version number": Cause.NO_TLS,
    "http request": Cause.NO_TLS,
    "https proxy request": Cause.NO_TLS,
}


def cause_of(error: TlsError) -> Cause:
    """The kind of a failed handshake, by OpenSSL's reasons."""
    for reason in (error.reason, *(one.reason for one in error.errors)):
        if reason in _CAUSES:
            return _CAUSES[reason]
        if " alert " in reason:
            return Cause.ALERT
    return Cause.OTHER


def take_errors() -> tuple[OpenSSLError, ...]:
    """Empty OpenSSL's error queue of this thread and return what stood in it."""
    found = []
    while code := lib.ERR_get_error():
        library = text(lib.ERR_lib_error_string(code)) or "unknown library"
        reason = text(lib.ERR_reason_error_string(code)) or f"reason {code & 0xFFF}"
        found.append(OpenSSLError(code, library, reason))
    return tuple(found)


def current_failure(otherwise: str) -> TlsError:
    """The error to raise for what OpenSSL just refused; `otherwise` is said where its queue is empty."""
    errors = take_errors()
    return TlsError(errors[0].reason if errors else otherwise, errors)
