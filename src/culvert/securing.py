"""The TLS of one connection: which service's it is, the handshake, and the proof of who the peer is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Hashable
from typing import Any, NamedTuple, NoReturn

from culvert.admission import Place
from culvert.errors import os_reason
from culvert.handshake import Handshake, read_hello
from culvert.log import Channel, Level
from culvert.negotiate.script import Ends, Secured
from culvert.presence import Presence
from culvert.revocation import RevocationError
from culvert.shared import Shared
from culvert.stream import Stream
from culvert.tally import Cell
from culvert.targets import Endpoint
from culvert.tls.engine import Engine
from culvert.tls.failure import Cause, TlsError, cause_of
from culvert.tls.hello import ClientHello
from culvert.tls.verify import Outcome
from culvert.trace import Tap


class _Role(NamedTuple):
    """How a handshake is called in the log, as stunnel's users know it."""

    call: str
    done: str
    peer: str
    """What stands in front of the peer's address: nobody must be banned for being the server."""


_ACCEPT = _Role("SSL_accept", "accepted", "")
_CONNECT = _Role("SSL_connect", "connected", "server ")
_LEVELS = {Outcome.ACCEPTED: Level.NOTICE, Outcome.IGNORED: Level.INFO, Outcome.REJECTED: Level.WARNING}


def _peer_key(endpoint: Endpoint) -> Hashable:
    """Whose sessions may be resumed here: behind the address of one proxy there are many servers."""
    return endpoint.target, endpoint.sockaddr


def _cause(error: Exception) -> Cause:
    """What a handshake failed for, as it is counted."""
    if isinstance(error, TlsError):
        return cause_of(error)
    return Cause.TIMEOUT if isinstance(error, TimeoutError) else Cause.CONNECTION


class Securing:
    """Makes the TLS of one connection, once: `accept` from a client, or `connect` to a server.

    `shared` and `log` are another service's after `accept`, where the client has asked for that by name.
    """

    __slots__ = (
        "_peer",
        "_place",
        "_presence",
        "_role",
        "_server_name",
        "_sessions",
        "endpoint",
        "engine",
        "fault",
        "ident",
        "log",
        "proven",
        "redirected",
        "shared",
        "tap",
    )

    def __init__(
        self,
        shared: Shared,
        log: Channel,
        ident: str,
        presence: Presence,
        place: Place | None = None,
    ) -> None:
        """`presence` is the client's."""
        self.shared = shared
        self.log = log
        self.ident = ident
        self.engine: Engine | None = None
        self.endpoint: Endpoint | None = None
        self.proven = False
        """Whether the handshake is done, and it is known who the peer is."""
        self.redirected = False
        self.fault: str | None = None
        """Why there was no handshake, without the name of the client."""
        self.tap: Tap | None = None
        self._presence = presence
        self._sessions = shared.context.sessions
        self._place = place
        self._server_name: str | None = None
        self._role = _ACCEPT
        self._peer = ""

    async def accept(self, stream: Stream, peer: str, ends: Ends) -> None:
        """Shake hands with a client. Raises TlsError, or RefusedError before that."""
        self._role, self._peer = _ACCEPT, peer
        hello = await self._choose_service(stream, ends) if self.shared.hosts else None
        engine = self._new_engine(stream)
        if hello is not None:
            engine.feed_bytes(hello.data)
        await self._shake_hands(engine, self._handshake(engine, stream))

    async def connect(self, stream: Stream, peer: str, endpoint: Endpoint | None) -> None:
        """Shake hands with a server; `endpoint` is None for a program that is one. Raises TlsError."""
        self._role, self._peer, self.endpoint = _CONNECT, peer, endpoint
        shared = self.shared
        name = shared.config.sni
        if name is None and endpoint is not None:
            name = endpoint.server_name
        self._server_name = name or None
        engine = self._new_engine(stream, name)
        if endpoint is not None:
            self._sessions.offer(_peer_key(endpoint), engine, shared.readiness.loop.time())
        await self._shake_hands(engine, self._handshake(engine, stream))

    async def associate(
        self, engine: Engine, handshake: Awaitable[None], peer: str, endpoint: Endpoint | None = None
    ) -> None:
        """Shake hands over datagrams: with the server at `endpoint`, or with a client. Raises TlsError.

        `handshake` drives the engine, which is of this service's context.
        """
        self._role, self._peer, self.endpoint = _ACCEPT if endpoint is None else _CONNECT, peer, endpoint
        self._renew_context()
        await self._shake_hands(engine, handshake)

    def result(self, carried: Any) -> Secured:
        """What came of the handshake, for a protocol's second script, which gets `carried` from the first."""
        engine = self.established
        certificate = engine.peer_certificate()
        verified = self.shared.config.verify.chain or self.shared.config.verify.peer
        return Secured(
            redirected=self.redirected,
            version=engine.version,
            cipher=engine.cipher[0],
            server_name=self.server_name,
            protocol=engine.protocol,
            certificate=certificate,
            verified=certificate is not None and verified and not self.redirected,
            carried=carried,
            resumed=engine.resumed,
            key_algorithm=self.shared.context.key_algorithm,
            signature_algorithm=self.shared.context.signature_algorithm,
        )

    @property
    def verified_certificate(self) -> bytes | None:
        """The peer's certificate in DER after the handshake; None for one that nobody has verified."""
        secured = self.result(None)
        return secured.certificate if secured.verified else None

    @property
    def server_name(self) -> str | None:
        """The name that was asked for in the handshake, as far as that went."""
        if self._server_name is None and self.engine is not None:
            return self.engine.server_name
        return self._server_name

    @property
    def established(self) -> Engine:
        """The engine, once the handshake is done."""
        assert self.engine is not None  # noqa: S101  asked for too early by Culvert itself
        return self.engine

    def remember(self) -> None:
        """Keep the session for the next connection to the same server."""
        shared = self.shared
        if self.endpoint is not None and self.engine is not None and shared.config.resumes:
            self._sessions.remember(_peer_key(self.endpoint), self.engine, shared.readiness.loop.time())

    async def _choose_service(self, stream: Stream, ends: Ends) -> ClientHello:
        """Go on as the service that the client asks for by its server name, where there is one for it."""
        shared = self.shared
        try:
            timeout = shared.config.timeout_busy
            hello = await read_hello(shared.readiness, stream, shared.scratch, timeout, self._presence)
        except OSError as error:
            self._refuse(self._fault(error), _cause(error))
        name = self._server_name = hello.server_name
        chosen = shared.host(name) if name is not None else None
        if chosen is not None:
            self.shared = chosen
            self.log = chosen.log.named(self.ident)
            self.log.info(f"SNI: {name} is for service [{chosen.config.name}]")
            await chosen.access.admit(ends, self.log)
            if chosen.gate is not None and self._place is not None:
                self._place.enter(chosen.gate)
        elif name is not None:
            self.log.info(f"SNI: no service is for {name}")
        return hello

    def _new_engine(self, stream: Stream, server_name: str | None = None) -> Engine:
        context, tracing, config = self.shared.context, self.shared.tracing, self.shared.config
        self._renew_context()
        if tracing.active:
            self.tap = tracing.tap(self.ident, config.name, stream, server=not config.client)
        return context.engine(self.shared.scratch, server_name, self.tap)

    def _renew_context(self) -> None:
        context = self.shared.context
        for fault in context.refresh(self.shared.readiness.loop.time()):
            self.log.warning(fault)
        self._sessions = context.sessions

    def _handshake(self, engine: Engine, stream: Stream) -> Awaitable[None]:
        presence = self._presence if self._role is _ACCEPT else None
        shared = self.shared
        return Handshake(shared.readiness, engine, stream, presence).run(shared.config.timeout_busy)

    async def _shake_hands(self, engine: Engine, handshake: Awaitable[None]) -> None:
        shared = self.shared
        self.engine = engine
        began = time.perf_counter()
        try:
            await handshake
        except (TlsError, OSError) as error:
            self._log_verification(engine)
            self._refuse(self._fault(error), _cause(error))
        taken = time.perf_counter() - began
        await self._prove(engine)
        self.proven = True
        resumed = engine.resumed and shared.config.resumes
        shared.counters.handshakes += 1
        shared.counters.resumed += resumed
        self._count(engine, taken)
        if self.log.enabled(Level.INFO):
            how = "previous session reused" if resumed else "new session negotiated"
            self.log.info(f"TLS {self._role.done}: {how}")
            cipher, bits = engine.cipher
            self.log.info(
                f"{engine.version} ciphersuite: {cipher} ({bits}-bit encryption), "
                f"group: {engine.group or 'none'}"
            )
            if shared.config.alpn:
                self.log.info(f"ALPN: {engine.protocol or 'no protocol'} negotiated")

    async def _prove(self, engine: Engine) -> None:
        """Hold that the peer is one who may pass, or have it redirected. Raises TlsError."""
        shared = self.shared
        reason = None
        try:
            shared.context.prove(engine)
        except TlsError as error:
            reason = str(error)
        self._log_verification(engine)
        if reason is None:
            try:
                await shared.revocation.check(engine, self.log)
            except RevocationError as error:
                reason = str(error)
                if self.endpoint is not None:
                    self._sessions.forget(_peer_key(self.endpoint))
        if reason is None:
            return
        if shared.redirect is None or shared.config.program_is_client:
            self._refuse(reason, Cause.CERTIFICATE)
        self.log.warning(f"The certificate of {self._peer} fails: {reason}")
        shared.counters.redirected += 1
        self.redirected = True

    def _count(self, engine: Engine, seconds: float) -> None:
        counters = self.shared.counters
        counters.took(Cell.HANDSHAKE_TIME, seconds)
        counters.negotiated(engine.version, engine.cipher[0], engine.group or "none")

    def _refuse(self, reason: str, cause: Cause) -> NoReturn:
        if not self._presence.silent:
            self.shared.counters.handshakes_failed += 1
            self.shared.counters.failures[cause.value] += 1
            self.log.error(f"{self._role.call}: {reason}")
        self.fault = f"server {self._peer}: {reason}" if self._role is _CONNECT else reason
        raise TlsError(f"TLS handshake with {self._role.peer}{self._peer} failed: {reason}") from None

    def _fault(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"TIMEOUTbusy ({self.shared.config.timeout_busy:g} s) exceeded"
        if isinstance(error, OSError):
            return f"{os_reason(error)} ({error.errno})"
        return str(error)

    def _log_verification(self, engine: Engine) -> None:
        verification = self.shared.context.verification(engine)
        if verification is not None and verification.cause is not None:
            self.shared.counters.rejected[verification.cause] += 1
        for finding in verification.findings if verification is not None else ():
            self.log.write(_LEVELS[finding.outcome], finding.text)
