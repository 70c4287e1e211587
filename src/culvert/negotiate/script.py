"""The language in which the protocols around a TLS handshake are written: scripts of steps, without I/O.

A script is a generator. It yields one step at a time and is sent the step's result; whoever runs it has the
sockets, the TLS engine and the clock. So a protocol is a page of text that reads as its RFC does, and is
tested without a network.

Two scripts surround each handshake, `before` and `after` it; `negotiate.protocol_of` gives both. What a
script says to a side goes out in clear before the handshake; after it, to the side that speaks TLS, inside
TLS. Exactly what a script asks for is read: what stands behind it in the stream is the relay's, or TLS's.

Rules for a script:
- It raises NegotiationError, and nothing else, whatever a peer says. The reason is shown in the log, where
  control characters are made harmless; it holds no credentials. It calls the sides "the client" and "the
  server", as the log does.
- It tells a peer that it refuses, where the protocol has words for that, before it raises.
- A step that fails raises into the script: `Connect` a BackendError, the others a NegotiationError, as does
  the end of TIMEOUTbusy. The script may tell its peers (`telling`), in the little time that it is given for
  that, and lets the error pass: the connection ends by it in any case.
- What the script before the handshake returns is given to the one after it, as `Secured.carried`.
- It is bounded: each line and each count of lines has a limit. TIMEOUTbusy bounds its time from outside.
- In clear, it discards what came too early (`Discard`) before the last word in front of a handshake is
  answered: whatever stands there would be taken for something that was said inside TLS.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from culvert.address import HostPort
from culvert.errors import BackendError, PeerError

LINE_LIMIT = 8192
"""Most bytes of one line with its end. SMTP's replies may have 512 (RFC 5321, 4.5.3.1.5), IMAP's lines 8192
(RFC 2683, 3.2.1.5), HTTP's are up to the server and have 8000 or more (RFC 9112, 3)."""


class NegotiationError(PeerError):
    """A peer did not keep to the protocol, or refused what was asked of it.

    `answer` is what the client is told of it by `telling`, where that is not what it is told of any failure.
    """

    def __init__(self, reason: str, answer: bytes | None = None) -> None:
        super().__init__(reason)
        self.answer = answer


class LeftError(NegotiationError):
    """A client took leave in the protocol's own words before it asked for TLS: nobody's fault."""


class Side(enum.Enum):
    """Whom a step is about: the client who came to the service, or the server that it connected to.

    A local program stands in the place of the one or the other.
    """

    CLIENT = "client"
    SERVER = "server"


class Line(NamedTuple):
    """Read a line: the result is its bytes without the LF, or CRLF, at its end."""

    side: Side
    limit: int = LINE_LIMIT


class Exactly(NamedTuple):
    """Read this many bytes: the result is these."""

    side: Side
    size: int


class Peek(NamedTuple):
    """Look at the next byte and leave it: the result is it, or nothing where the side cannot be looked at.

    That can be a pipe, or whoever speaks inside TLS.
    """

    side: Side


class Send(NamedTuple):
    """Send bytes to a side. No result."""

    side: Side
    data: bytes


class Discard(NamedTuple):
    """Throw away what this side has sent already, and say so in the log where it has. No result."""

    side: Side


class Connect(NamedTuple):
    """Connect to the service's target, or start its program; or connect to `target`, where that is given.

    The result is the address that was reached (see `Ends`).
    """

    target: HostPort | None = None


class Note(NamedTuple):
    """Write this to the log, at level info. No result."""

    text: str


Step = Line | Exactly | Peek | Send | Discard | Connect | Note
Script = Generator[Step, Any, Any]


@dataclass(frozen=True, slots=True)
class Ends:
    """Between which socket addresses a client came: its own, and the one that it connected to.

    Each is as `getpeername` and `getsockname` return it, or None where there is none: Unix sockets, programs.
    """

    source: tuple[Any, ...] | None
    destination: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Secured:
    """What came of the handshake. `redirected` clients failed verification and get another target.

    `certificate` is the peer's in DER; `verified` says that one was shown and is good. `carried` is what
    the script before the handshake returned. The algorithms are those of the certificate that Culvert itself
    showed.
    """

    redirected: bool
    version: str
    cipher: str
    server_name: str | None
    protocol: str | None
    certificate: bytes | None
    verified: bool
    carried: Any = None
    resumed: bool = False
    key_algorithm: str | None = None
    signature_algorithm: str | None = None


class Protocol(NamedTuple):
    """The two scripts of a protocol. Between them they connect once.

    `unsecured` is what a client in clear is told where the handshake with its server fails; None is nothing.
    """

    before: Callable[[Ends], Script]
    after: Callable[[Ends, Secured], Script]
    unsecured: bytes | None = None


def nothing(*_: object) -> Script:
    """There is nothing to say."""
    yield from ()


def connecting(*_: object) -> Script:
    """The target is reached, and nothing is said."""
    yield Connect()


def say(side: Side, words: bytes) -> Script:
    """Send this."""
    yield Send(side, words)


def telling(script: Script, answer: bytes) -> Script:
    """The script; where it fails, the client is told `answer`, or the error's own, before it ends."""
    try:
        return (yield from script)
    except NegotiationError as error:
        yield Send(Side.CLIENT, answer if error.answer is None else error.answer)
        raise
    except BackendError:
        yield Send(Side.CLIENT, answer)
        raise
