"""The life of one connection: TLS on one side, a socket or a program on the other, the relay between them.

The order follows the role. A server finishes the TLS handshake with its client before it connects to its
target or starts its program; a client connects to its target first and shakes hands with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from cryptography import x509

from culvert import sockopt
from culvert.address import show
from culvert.config.model import Service
from culvert.connect import Connector, Endpoint
from culvert.errors import BackendError, os_reason
from culvert.handshake import Handshake, read_hello
from culvert.log import Channel, Level
from culvert.metrics import Counters
from culvert.readiness import Readiness
from culvert.relay import End, Limits, Relay, Stream
from culvert.resolve import InternetAddress
from culvert.revocation import Revocation, RevocationError
from culvert.spawn import Program, Programs
from culvert.tls.context import TlsContext
from culvert.tls.engine import Engine, Scratch
from culvert.tls.failure import TlsError
from culvert.tls.hello import ClientHello
from culvert.tls.names import issuer, subject
from culvert.tls.verify import Outcome

LINGER = 2.0
"""Seconds for which a peer that was sent an alert may go on sending: a close with its bytes unread would
send an RST, which can overtake the alert."""

LINGER_LIMIT = 1024 * 1024
"""Most bytes that such a peer may send."""


class _Role(NamedTuple):
    """How a handshake is called in the log, as stunnel's users know it."""

    call: str
    done: str


_ACCEPT = _Role("SSL_accept", "accepted")
_CONNECT = _Role("SSL_connect", "connected")
_LEVELS = {Outcome.ACCEPTED: Level.NOTICE, Outcome.IGNORED: Level.INFO, Outcome.REJECTED: Level.WARNING}


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of one service in one worker have in common."""

    config: Service
    context: TlsContext
    revocation: Revocation
    connector: Connector
    redirect: Connector | None
    """To where clients go whose certificate fails."""
    programs: Programs
    scratch: Scratch
    readiness: Readiness
    log: Channel
    counters: Counters
    hosts: list[Host]
    """The services that take over clients of this one by the name that they ask for."""

    def host(self, name: str) -> Shared | None:
        """The service for this server name: by the name itself, else by the first pattern that covers it."""
        exact = (host.shared for host in self.hosts if host.pattern == name)
        covering = (host.shared for host in self.hosts if host.covers(name))
        return next(exact, None) or next(covering, None)


@dataclass(frozen=True, slots=True)
class Host:
    """A service that is chosen by a server name: `pattern` is as in `ServerName`."""

    pattern: str
    shared: Shared

    def covers(self, name: str) -> bool:
        return self.pattern.startswith("*.") and name.endswith(self.pattern[1:])


def _shown(shared: Shared, accepted: socket.socket | None, address: InternetAddress | None) -> str:
    if address is not None:
        return show(address)
    return f"program {shared.config.exec}" if accepted is None else "unix socket"


class Connection:
    """One accepted connection, or one run of a program that stands in for it. `run` it once."""

    __slots__ = (
        "_address",
        "_endpoint",
        "_engine",
        "_program",
        "_redirected",
        "_relay",
        "_sessions",
        "_shared",
        "_streams",
        "_tls",
        "ident",
        "log",
        "peer",
        "started",
    )

    def __init__(
        self, shared: Shared, accepted: socket.socket | None, address: InternetAddress | None, ident: str
    ) -> None:
        """`accepted` is None where the service's own program takes the place of a client; `address` is None
        there and for a client of a Unix socket, whose name for itself proves nothing.
        """
        self._shared = shared
        self._address = address
        self._streams: list[Stream] = [] if accepted is None else [accepted]
        self._tls: Stream | None = None
        self._engine: Engine | None = None
        self._sessions = shared.context.sessions
        self._endpoint: Endpoint | None = None
        self._relay: Relay | None = None
        self._program: Program | None = None
        self._redirected = False
        self.peer = _shown(shared, accepted, address)
        self.ident = ident
        self.log: Channel = shared.log.named(ident)
        self.started = shared.readiness.loop.time()

    async def run(self) -> None:
        """Serve the connection to its end; whatever happens to it is logged here and goes no further."""
        end = End.RESET
        try:
            end = await self._serve()
        except TlsError as error:
            end = End.TLS_FAILED
            self.log.error(str(error))
        except BackendError as error:
            self.log.error(str(error))
        except OSError as error:
            self.log.error(f"{os_reason(error)} ({error.errno})")
        except asyncio.CancelledError:
            end = End.CLOSED
            self.log.notice("Connection ended with its worker")
            raise
        finally:
            await self._close(end)

    def describe(self, now: float) -> str:
        """One line for a list of connections."""
        sent = (self._relay.sent_to_tls, self._relay.sent_to_plain) if self._relay is not None else (0, 0)
        state = "open" if self._relay is not None else "being set up"
        return (
            f"Service [{self._shared.config.name}] connection [{self.ident}] from {self.peer}: {state}, "
            f"{now - self.started:.0f} s, {sent[0]} byte(s) sent to TLS, {sent[1]} byte(s) sent to socket"
        )

    async def _serve(self) -> End:
        name = self._shared.config.name
        if not self._streams:
            return await self._serve_program()
        self.log.notice(f"Service [{name}] accepted connection from {self.peer}")
        accepted = self._streams[0]
        if self._shared.config.client:
            remote, endpoint = await self._open_remote()
            await self._connect_tls(remote, endpoint)
            return await self._carry(remote, accepted)
        await self._accept_tls(accepted)
        if self._redirected:
            remote = await self._open_redirect()
        else:
            remote, _ = await self._open_remote()
        return await self._carry(accepted, remote)

    async def _serve_program(self) -> End:
        """A service without `accept`: its program stands where a client would."""
        remote, endpoint = await self._open_remote(program=False)
        if self._shared.config.client:
            await self._connect_tls(remote, endpoint)
            return await self._carry(remote, self._start_program(self._protocol_variables()))
        program = self._start_program({})
        await self._accept_tls(program)
        return await self._carry(program, remote)

    # --- the two sides ---

    async def _open_remote(self, *, program: bool = True) -> tuple[Stream, Endpoint | None]:
        if program and self._shared.config.exec is not None and not self._shared.config.connect:
            return self._start_program(self._client_variables()), None
        sock, endpoint = await self._shared.connector.connect(self.log)
        self._streams.append(sock)
        name = self._shared.config.name
        self.log.notice(f"Service [{name}] connected remote server from {show(sock.getsockname())}")
        return sock, endpoint

    async def _open_redirect(self) -> Stream:
        """The connection for a client whose certificate failed."""
        self.log.notice("Redirecting connection")
        assert self._shared.redirect is not None  # noqa: S101  or nobody would be redirected
        sock, _ = await self._shared.redirect.connect(self.log)
        self._streams.append(sock)
        return sock

    def _start_program(self, variables: Mapping[str, str]) -> Stream:
        program = self._shared.programs.start(self._shared.config, variables)
        self._program = program
        self._streams.append(program.stream)
        program.on_exit = self._program_exited
        self.log.info(f"Local mode child started (PID={program.pid})")
        return program.stream

    def _program_exited(self) -> None:
        program = self._program
        if program is None:
            return
        status = program.status or 0
        how = f"exited with status {status}" if status >= 0 else f"was ended by signal {-status}"
        self.log.info(f"Program (PID={program.pid}) {how}")
        if self._relay is not None:
            self._relay.plain_exits()

    def _client_variables(self) -> dict[str, str]:
        variables = {}
        if self._address is not None:
            variables = {"REMOTE_HOST": str(self._address[0]), "REMOTE_PORT": str(self._address[1])}
        certificate = self._engine.peer_certificate() if self._engine is not None else None
        if certificate is not None:
            leaf = x509.load_der_x509_certificate(certificate)
            variables["SSL_CLIENT_DN"] = subject(leaf)
            variables["SSL_CLIENT_I_DN"] = issuer(leaf)
        return variables | self._protocol_variables()

    def _protocol_variables(self) -> dict[str, str]:
        protocol = self._engine.protocol if self._engine is not None else None
        return {} if protocol is None else {"SSL_ALPN_PROTOCOL": protocol}

    # --- TLS ---

    async def _accept_tls(self, stream: Stream) -> None:
        hello = await self._choose_service(stream) if self._shared.hosts else None
        engine = self._new_engine()
        if hello is not None:
            engine.feed_bytes(hello.data)
        await self._shake_hands(engine, stream, _ACCEPT, self.peer)

    async def _choose_service(self, stream: Stream) -> ClientHello:
        """Go on as the service that the client asks for by its server name, where there is one for it."""
        shared = self._shared
        try:
            hello = await read_hello(shared.readiness, stream, shared.scratch, shared.config.timeout_busy)
        except OSError as error:
            self._refuse(_ACCEPT, self.peer, self._handshake_fault(error))
        name = hello.server_name
        chosen = shared.host(name) if name is not None else None
        if chosen is not None:
            self._shared = chosen
            self.log = chosen.log.named(self.ident)
            self.log.info(f"SNI: {name} is for service [{chosen.config.name}]")
        elif name is not None:
            self.log.info(f"SNI: no service is for {name}")
        return hello

    async def _connect_tls(self, stream: Stream, endpoint: Endpoint | None) -> None:
        shared = self._shared
        name = shared.config.sni
        if name is None and endpoint is not None:
            name = endpoint.server_name
        engine = self._new_engine(name)
        self._endpoint = endpoint
        if endpoint is not None:
            self._sessions.offer(endpoint.sockaddr, engine, shared.readiness.loop.time())
        server = show(endpoint.sockaddr) if endpoint is not None else f"program {shared.config.exec}"
        await self._shake_hands(engine, stream, _CONNECT, server)

    def _new_engine(self, server_name: str | None = None) -> Engine:
        context = self._shared.context
        for fault in context.refresh(self._shared.readiness.loop.time()):
            self.log.warning(fault)
        self._sessions = context.sessions
        return context.engine(self._shared.scratch, server_name)

    async def _shake_hands(self, engine: Engine, stream: Stream, role: _Role, peer: str) -> None:
        shared = self._shared
        self._engine, self._tls = engine, stream
        try:
            await Handshake(shared.readiness, engine, stream).run(shared.config.timeout_busy)
        except (TlsError, OSError) as error:
            self._log_verification(engine)
            self._refuse(role, peer, self._handshake_fault(error))
        await self._prove(engine, role, peer)
        resumed = engine.resumed and shared.config.resumes
        shared.counters.handshakes += 1
        shared.counters.resumed += resumed
        if self.log.enabled(Level.INFO):
            how = "previous session reused" if resumed else "new session negotiated"
            self.log.info(f"TLS {role.done}: {how}")
            cipher, bits = engine.cipher
            self.log.info(
                f"{engine.version} ciphersuite: {cipher} ({bits}-bit encryption), "
                f"group: {engine.group or 'none'}"
            )
            if shared.config.alpn:
                self.log.info(f"ALPN: {engine.protocol or 'no protocol'} negotiated")

    async def _prove(self, engine: Engine, role: _Role, peer: str) -> None:
        """Hold that the peer is one who may pass, or have it redirected. Raises TlsError."""
        shared = self._shared
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
                if self._endpoint is not None:
                    self._sessions.forget(self._endpoint.sockaddr)
        if reason is None:
            return
        if shared.redirect is None or self._program is not None:
            self._refuse(role, peer, reason)
        self.log.warning(f"The certificate of {peer} fails: {reason}")
        shared.counters.redirected += 1
        self._redirected = True

    def _refuse(self, role: _Role, peer: str, reason: str) -> NoReturn:
        self._shared.counters.handshakes_failed += 1
        self.log.error(f"{role.call}: {reason}")
        raise TlsError(f"TLS handshake with {peer} failed: {reason}") from None

    def _handshake_fault(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"TIMEOUTbusy ({self._shared.config.timeout_busy:g} s) exceeded"
        if isinstance(error, OSError):
            return f"{os_reason(error)} ({error.errno})"
        return str(error)

    def _log_verification(self, engine: Engine) -> None:
        verification = self._shared.context.verification(engine)
        if verification is not None and verification.cause is not None:
            self._shared.counters.rejected[verification.cause] += 1
        for finding in verification.findings if verification is not None else ():
            self.log.write(_LEVELS[finding.outcome], finding.text)

    # --- carrying and closing ---

    async def _carry(self, tls: Stream, plain: Stream) -> End:
        shared, engine = self._shared, self._engine
        assert engine is not None  # noqa: S101  the callers have shaken hands
        limits = Limits(shared.config.timeout_idle, shared.config.timeout_close)
        relay = Relay(shared.readiness, engine, tls, plain, limits)
        self._relay = relay
        if self._program is not None and self._program.status is not None:
            shared.readiness.loop.call_soon(relay.plain_exits)  # it was quicker than we
        if engine.version != "TLSv1.3":
            self.tls_answered()  # the session is complete with the handshake
        return await relay.run(self)

    def tls_answered(self) -> None:
        """Keep the session for the next connection (of `Observer`)."""
        if self._endpoint is not None and self._engine is not None and self._shared.config.resumes:
            now = self._shared.readiness.loop.time()
            self._sessions.remember(self._endpoint.sockaddr, self._engine, now)

    def tls_truncated(self) -> None:
        """Say so at once: it may be long before the connection ends (of `Observer`)."""
        self.log.info("TLS closed without close_notify: what came may be truncated")

    async def _close(self, end: End) -> None:
        relay, counters = self._relay, self._shared.counters
        if self._program is not None:
            self._program.on_exit = None
            if end is not End.CLOSED:
                self._program.signal(signal.SIGHUP)  # its other end is gone, as a terminal would tell it
        if relay is not None:
            self._log_end(relay, end)
            counters.truncated += relay.truncated
            counters.sent_to_tls += relay.sent_to_tls
            counters.sent_to_plain += relay.sent_to_plain
        counters.ended[end.value] += 1
        verb = "closed" if end in (End.CLOSED, End.UNANSWERED) else "reset"
        sent = (relay.sent_to_tls, relay.sent_to_plain) if relay is not None else (0, 0)
        self.log.notice(f"Connection {verb}: {sent[0]} byte(s) sent to TLS, {sent[1]} byte(s) sent to socket")
        await self._close_streams(end)

    def _log_end(self, relay: Relay, end: End) -> None:
        match end:
            case End.TLS_FAILED:
                self.log.error(f"SSL_read: {relay.reason}")
            case End.RESET:
                self.log.error(relay.reason or "Connection reset")
            case End.IDLE:
                self.log.info("TIMEOUTidle exceeded: sending reset")
            case End.UNANSWERED:
                self.log.info("TIMEOUTclose exceeded: closing")

    async def _close_streams(self, end: End) -> None:
        reset = self._shared.config.reset and end in (End.RESET, End.IDLE, End.TLS_FAILED)
        for stream in self._streams:
            if end is End.TLS_FAILED and stream is self._tls:
                continue
            if reset and isinstance(stream, socket.socket):
                sockopt.reset_on_close(stream)
            self._shut(stream)
        if end is End.TLS_FAILED and self._tls is not None:
            try:
                if isinstance(self._tls, socket.socket):
                    await self._linger(self._tls)
            finally:
                self._shut(self._tls)

    def _shut(self, stream: Stream) -> None:
        self._shared.readiness.forget(stream.fileno())
        stream.close()

    async def _linger(self, sock: socket.socket) -> None:
        """Let a peer who was sent an alert read it before the socket is gone."""
        with contextlib.suppress(OSError):  # TimeoutError is one
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER):
                taken = 0
                while taken < LINGER_LIMIT and (
                    data := await self._shared.readiness.loop.sock_recv(sock, 65536)
                ):
                    taken += len(data)
