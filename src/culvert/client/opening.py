"""`culvert.connect`: a TLS connection to a server, as the reader and the writer of an asyncio program.

It is a service of the configuration in all but its plain side: the same options, the same way to the target,
the same handshake and verification. What a tunnel's local client would say and hear is the program's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from culvert import targets
from culvert.client.arguments import Arguments, Options
from culvert.config.model import Service
from culvert.connection import Connection
from culvert.conversation import Peer
from culvert.errors import BackendError, ConnectError, CulvertError, os_reason
from culvert.log import Channel
from culvert.metrics import Counters
from culvert.negotiate.script import NegotiationError, Side
from culvert.program_log import ProgramLog, quiet_logger
from culvert.readiness import Readiness
from culvert.responder import ResponderClient
from culvert.service import Prepared, Surroundings, share
from culvert.shared import Shared
from culvert.spawn import Programs
from culvert.stream import End
from culvert.tls.context import TlsContext
from culvert.tls.credentials import PassPhrases
from culvert.tls.engine import Engine, Scratch
from culvert.tls.failure import TlsError
from culvert.tls.verify import Outcome
from culvert.trace import Tracing
from culvert.transport import Secure, TlsReader, open_streams

LIMIT = 64 * 1024
"""The reader's limit, as asyncio's own: the longest line, and half of what is read ahead."""


class _Buffers(threading.local):
    """One scratch for each thread, and so for each loop that runs: nothing is kept in it across an await."""

    def __init__(self) -> None:
        self.scratch = Scratch()


_BUFFERS = _Buffers()


@dataclass(frozen=True, slots=True)
class TlsSession:
    """What a handshake has come to: `writer.get_extra_info("tls")`.

    `version` and `cipher` are OpenSSL's names, `group` is the key exchange's, `protocol` what ALPN chose;
    `peer_certificate` is the server's in DER.
    """

    version: str
    cipher: str
    bits: int
    group: str | None
    protocol: str | None
    peer_certificate: bytes | None

    @classmethod
    def of(cls, engine: Engine) -> TlsSession:
        """That of an engine whose handshake is done."""
        cipher, bits = engine.cipher
        return cls(engine.version, cipher, bits, engine.group, engine.protocol, engine.peer_certificate())


async def connect(
    host: str,
    port: int,
    *,
    cafile: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    pass_phrase: bytes | None = None,
    alpn: Sequence[str] = (),
    server_name: str | None = None,
    verify: bool = True,
    options: Options | None = None,
    limit: int = LIMIT,
) -> tuple[TlsReader, asyncio.StreamWriter]:
    """Open a TLS connection; returns when the server is who it should be, and TLS stands.

    The server must show a certificate for `server_name`, or else for `host`, that leads to one in `cafile`
    (PEM), or else to one of the system's. `verify=False` takes whoever answers. `cert` and `key` (PEM or
    PKCS#12; `pass_phrase` opens the key) are shown to a server that asks for them, and `alpn` lists
    application protocols, the preferred one first.

    `options` are more options of a service, by their names in a configuration; one that may stand there
    several times takes a list. `checkHost` and `checkIP` there take the place of the name that is looked for,
    and `protocol` has STARTTLS spoken first: the reader begins with the server's greeting, if there is one.
    docs/library.md lists those that it takes.

    The reader and the writer are those of asyncio. An end of the stream without close_notify is
    TruncatedError where it is read; `writer.write_eof()` sends a close_notify, and what the server says can
    be read on; `writer.close()` does so too, and `await writer.wait_closed()` waits for the socket's close.
    `writer.get_extra_info` knows `tls` (a TlsSession), `peername`, `sockname` and `socket`. `limit` is the
    reader's.

    Raises ConfigurationError for arguments that cannot be used, ConnectError where nobody answers, TlsError
    where the handshake or the verification fails, and PeerError for anything else that the server does wrong.
    """
    arguments = Arguments(host, port, cafile, cert, key, alpn, server_name, verify, options or {})
    service = arguments.service()
    loop = asyncio.get_running_loop()
    log = ProgramLog(quiet_logger(), logging.DEBUG).channel(service.debug, service.name)
    phrases = PassPhrases(_teller(pass_phrase))
    prepared = await loop.run_in_executor(None, _prepare, service, phrases, log)
    readiness = Readiness(loop)
    opened = False
    try:
        programs, responders = Programs(loop, {}), ResponderClient(loop)
        numbers = itertools.count()
        surroundings = Surroundings(readiness, _BUFFERS.scratch, programs, responders, numbers, Tracing())
        opening = _Opening(share(prepared, surroundings, log, Counters()))
        engine, sock = await opening.open()
        opened = True
    finally:
        if not opened:
            readiness.close()
    ends = {"peername": sock.getpeername(), "sockname": sock.getsockname(), "socket": sock}
    extra = {"tls": TlsSession.of(engine), **ends}
    secure = Secure(readiness, engine, sock, readiness.close, service.timeout_close)
    return open_streams(secure, extra, limit, opening.heard)


class _Opening(Connection):
    """The connection up to its relay, with the program in the place of a client."""

    __slots__ = ("_local",)

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared, None, None, shared.config.name)
        self._local = _Program()
        self.peer = "this program"

    @property
    def heard(self) -> bytes:
        """What the protocol has handed on to the client so far."""
        return bytes(self._local.heard)

    def peer_of(self, side: Side) -> Peer:
        return self._local if side is Side.CLIENT else super().peer_of(side)

    async def open(self) -> tuple[Engine, socket.socket]:
        """Secure the connection. Raises CulvertError; then the socket is closed."""
        end = End.RESET
        try:
            await self._establish()
        except TlsError as error:
            end = End.TLS_FAILED
            raise TlsError("; ".join((error.reason, *self._objections())), error.errors) from None
        except ConnectError as error:
            where = ", ".join(map(str, self._shared.config.connect))
            raise ConnectError(f"{where} {error.cause.value}", error.cause) from None
        except CulvertError as error:
            end = End.NEGOTIATION_FAILED if isinstance(error, NegotiationError) else End.RESET
            raise
        except OSError as error:
            raise BackendError(os_reason(error)) from None
        else:
            end = End.CLOSED
            sock = self._stream(Side.SERVER)
            assert isinstance(sock, socket.socket)  # noqa: S101  there is no program
            return self._securing.established, sock
        finally:
            if end is not End.CLOSED:
                await self._close_streams(end)

    def _objections(self) -> list[str]:
        """What there was against the server's certificate."""
        engine = self._securing.engine
        found = self._shared.context.verification(engine) if engine is not None else None
        rejected = found.findings if found is not None else ()
        return [finding.text for finding in rejected if finding.outcome is Outcome.REJECTED]


class _Program(Peer):
    """The side of the program that calls: it hears, and has said nothing yet."""

    def __init__(self) -> None:
        self.heard = bytearray()

    async def send(self, data: bytes) -> None:
        self.heard += data

    def discard(self) -> int:
        return 0

    async def line(self, limit: int) -> bytes:
        raise NegotiationError("says nothing before TLS stands")

    async def exactly(self, count: int) -> bytes:
        raise NegotiationError("says nothing before TLS stands")

    async def peek(self) -> bytes:
        raise NegotiationError("says nothing before TLS stands")


def _teller(pass_phrase: bytes | None) -> Any:
    def tell(path: str) -> bytes:
        if pass_phrase is None:
            raise OSError("it is locked, and no pass phrase was given")
        return pass_phrase

    return tell


def _prepare(service: Service, phrases: PassPhrases, log: Channel) -> Prepared:
    """Read the files. Raises ConfigurationError."""
    context = TlsContext(service, phrases)
    reached = targets.prepare(service, service.connect, log)
    return Prepared(
        service, context, reached, redirect=None, listener=None, turn=None, wrappers=None, gate=None
    )
