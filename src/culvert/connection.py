"""The life of one connection: TLS on one side, a socket or a program on the other, the relay between them.

What is said before and after the handshake, and when the target is connected to, is a matter of the service's
protocol: its two scripts stand around the handshake, and the steps that they ask for are done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping

from cryptography import x509

from culvert import sockopt
from culvert.address import HostPort, show
from culvert.connect import Endpoint
from culvert.conversation import ClearPeer, Peer, TlsPeer, converse
from culvert.errors import BackendError, os_reason
from culvert.log import Channel
from culvert.negotiate.script import Ends, NegotiationError, Side
from culvert.relay import End, Limits, Relay, Stream
from culvert.resolve import InternetAddress, SocketAddress
from culvert.securing import Securing
from culvert.shared import Shared
from culvert.spawn import Program
from culvert.tls.failure import TlsError
from culvert.tls.names import issuer, subject

LINGER = 2.0
"""Seconds for which a peer that was sent an alert may go on sending: a close with its bytes unread would
send an RST, which can overtake the alert."""

LINGER_LIMIT = 1024 * 1024
"""Most bytes that such a peer may send."""


def _shown(shared: Shared, accepted: socket.socket | None, address: InternetAddress | None) -> str:
    if address is not None:
        return show(address)
    return f"program {shared.config.exec}" if accepted is None else "unix socket"


class Connection:
    """One accepted connection, or one run of a program that stands in for it. `run` it once."""

    __slots__ = (
        "_accepted",
        "_address",
        "_endpoint",
        "_program",
        "_relay",
        "_securing",
        "_streams",
        "_target",
        "_tls",
        "ident",
        "peer",
        "started",
    )

    def __init__(
        self, shared: Shared, accepted: socket.socket | None, address: InternetAddress | None, ident: str
    ) -> None:
        """`accepted` is None where the service's own program takes the place of a client; `address` is None
        there and for a client of a Unix socket, whose name for itself proves nothing.
        """
        self._accepted = accepted
        self._address = address
        self._streams: dict[Side, Stream] = {}
        if accepted is not None:
            self._streams[Side.CLIENT] = accepted
        self._securing = Securing(shared, shared.log.named(ident), ident)
        self._tls: Stream | None = None
        self._endpoint: Endpoint | None = None
        self._target = "the target"
        self._relay: Relay | None = None
        self._program: Program | None = None
        self.peer = _shown(shared, accepted, address)
        self.ident = ident
        self.started = shared.readiness.loop.time()

    @property
    def log(self) -> Channel:
        """The channel of the service that the connection has come to."""
        return self._securing.log

    @property
    def _shared(self) -> Shared:
        return self._securing.shared

    async def run(self) -> None:
        """Serve the connection to its end; whatever happens to it is logged here and goes no further."""
        end = End.RESET
        try:
            end = await self._serve()
        except TlsError as error:
            end = End.TLS_FAILED
            self.log.error(str(error))
        except NegotiationError as error:
            end = End.NEGOTIATION_FAILED
            self.log.error(f"Negotiation failed for {self.peer}: {error}")
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
        if self._accepted is not None:
            name = self._shared.config.name
            self.log.notice(f"Service [{name}] accepted connection from {self.peer}")
        timeout = self._shared.config.timeout_busy
        ends = self._ends()
        await converse(self._shared.protocol.before(ends), self, timeout)
        await self._secure()
        await converse(self._shared.protocol.after(ends, self._securing.result()), self, timeout)
        return await self._carry()

    def _ends(self) -> Ends:
        if self._accepted is None or self._address is None:
            return Ends(None, None)
        return Ends(self._address, self._accepted.getsockname())

    async def _secure(self) -> None:
        if self._shared.config.client:
            self._tls = self._stream(Side.SERVER)
            await self._securing.connect(self._tls, self.name(Side.SERVER), self._endpoint)
        else:
            self._tls = self._stream(Side.CLIENT)
            await self._securing.accept(self._tls, self.peer)

    # --- what scripts ask for ---

    def peer_of(self, side: Side) -> Peer:
        """How a side is talked to: inside TLS once that is there (of `Scene`)."""
        stream, readiness = self._stream(side), self._shared.readiness
        if stream is self._tls:
            return TlsPeer(readiness, stream, self._securing.established)
        return ClearPeer(readiness, stream)

    def name(self, side: Side) -> str:
        """How the log calls a side (of `Scene`)."""
        return self.peer if side is Side.CLIENT else self._target

    async def connect(self, target: HostPort | None) -> SocketAddress | None:
        """Reach the target (of `Scene`): a client whose certificate failed gets one of its own."""
        shared = self._shared
        if self._securing.redirected:
            assert shared.redirect is not None  # noqa: S101  or nobody would be redirected
            self.log.notice("Redirecting connection")
            connector = shared.redirect
        elif shared.config.exec is not None and not shared.config.connect:
            self._target = f"program {shared.config.exec}"
            self._streams[Side.SERVER] = self._start_program(self._client_variables())
            return None
        else:
            connector = shared.connector
        sock, endpoint = await connector.connect(self.log)
        self._streams[Side.SERVER], self._endpoint = sock, endpoint
        self._target = show(endpoint.sockaddr)
        if not self._securing.redirected:
            self.log.notice(
                f"Service [{shared.config.name}] connected remote server from {show(sock.getsockname())}"
            )
        return endpoint.sockaddr

    def _stream(self, side: Side) -> Stream:
        if side is Side.CLIENT and side not in self._streams:
            self._streams[side] = self._start_program(self._protocol_variables())
        return self._streams[side]

    # --- programs ---

    def _start_program(self, variables: Mapping[str, str]) -> Stream:
        program = self._shared.programs.start(self._shared.config, variables)
        self._program = program
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
        engine = self._securing.engine
        certificate = engine.peer_certificate() if engine is not None else None
        if certificate is not None:
            leaf = x509.load_der_x509_certificate(certificate)
            variables["SSL_CLIENT_DN"] = subject(leaf)
            variables["SSL_CLIENT_I_DN"] = issuer(leaf)
        return variables | self._protocol_variables()

    def _protocol_variables(self) -> dict[str, str]:
        engine = self._securing.engine
        protocol = engine.protocol if engine is not None else None
        return {} if protocol is None else {"SSL_ALPN_PROTOCOL": protocol}

    # --- carrying and closing ---

    async def _carry(self) -> End:
        shared, engine = self._shared, self._securing.established
        plain = Side.CLIENT if shared.config.client else Side.SERVER
        limits = Limits(shared.config.timeout_idle, shared.config.timeout_close)
        assert self._tls is not None  # noqa: S101  `_secure` was here
        relay = Relay(shared.readiness, engine, self._tls, self._stream(plain), limits)
        self._relay = relay
        if self._program is not None and self._program.status is not None:
            shared.readiness.loop.call_soon(relay.plain_exits)  # it was quicker than we
        if engine.version != "TLSv1.3":
            self.tls_answered()  # the session is complete with the handshake
        return await relay.run(self)

    def tls_answered(self) -> None:
        """Keep the session for the next connection (of `Observer`)."""
        self._securing.remember()

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
        if self._securing.tap is not None:
            self._securing.tap.close()

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
        last = self._told(end)
        for stream in self._streams.values():
            if stream is last:
                continue
            if reset and isinstance(stream, socket.socket):
                sockopt.reset_on_close(stream)
            self._shut(stream)
        if last is not None:
            try:
                if isinstance(last, socket.socket):
                    await self._linger(last)
            finally:
                self._shut(last)

    def _told(self, end: End) -> Stream | None:
        """The side that was told the reason of a failure, and must have the time to read it."""
        match end:
            case End.TLS_FAILED:
                return self._tls
            case End.NEGOTIATION_FAILED:
                client = self._streams.get(Side.CLIENT)
                if client is self._tls and client is not None:
                    self._say_goodbye(client)
                return client
        return None

    def _say_goodbye(self, stream: Stream) -> None:
        """Send a close_notify, as far as there is room for it."""
        engine = self._securing.established
        engine.close()
        if count := engine.output():
            with contextlib.suppress(OSError):
                stream.send(engine.scratch.transformed[:count])

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
