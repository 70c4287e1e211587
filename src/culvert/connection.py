"""The life of one connection: TLS on one side, a socket or a program on the other, the relay between them.

What is said before and after the handshake, and when the target is connected to, is a matter of the service's
protocol: its two scripts stand around the handshake, and the steps that they ask for are done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from culvert import program_variables, sockopt
from culvert.address import HostPort, show
from culvert.admission import Place
from culvert.arrival import arrive, shown
from culvert.config.model import Transparent
from culvert.conversation import ClearPeer, Conversation, Peer, TlsPeer
from culvert.errors import BackendError, ConnectError, os_reason
from culvert.log import Channel, Level
from culvert.negotiate.script import Ends, LeftError, NegotiationError, Script, Side, connecting, nothing, say
from culvert.parting import AFTER_DRAIN, AFTER_FAILURE, part
from culvert.presence import Presence
from culvert.refusals import RefusedError
from culvert.relay import Limits, Relay
from culvert.resolve import InternetAddress, SocketAddress
from culvert.securing import Securing
from culvert.shared import Shared
from culvert.spawn import Program
from culvert.stream import End, Stream
from culvert.summary import Summary, tell_end
from culvert.tally import Cell
from culvert.targets import Endpoint
from culvert.terminal import UNHEARD, Terminal
from culvert.tls.engine import Engine
from culvert.tls.failure import TlsError
from culvert.transparent import route
from culvert.vpn.datagram.link import DatagramLink
from culvert.vpn.stream_link import StreamLink

VpnLink = StreamLink | DatagramLink

WITH_WORKER = "with its worker"
"""Why a connection ends that nobody has ended by itself."""


class Connection:
    """One accepted connection, or one run of a program that stands in for it. `run` it once."""

    __slots__ = (
        "_accepted",
        "_address",
        "_addressed",
        "_asked",
        "_detail",
        "_endpoint",
        "_ends",
        "_hurried",
        "_leave",
        "_place",
        "_presence",
        "_program",
        "_relay",
        "_securing",
        "_streams",
        "_target",
        "_tls",
        "ident",
        "over",
        "parting",
        "peer",
        "started",
    )

    def __init__(
        self,
        shared: Shared,
        accepted: Stream | None,
        address: InternetAddress | None,
        ident: str,
        place: Place | None = None,
    ) -> None:
        """`accepted` is None where the service's own program takes the place of a client; `address` is None
        there, for a pipe, and for a client of a Unix socket, whose name for itself proves nothing. `place` is
        what it was given at the service's gate; who admitted it releases it.
        """
        self._accepted = accepted
        self._address = address
        self._ends = Ends(None, None)
        self._streams: dict[Side, Stream] = {}
        self._addressed: set[Side] = set()
        if accepted is not None:
            self._streams[Side.CLIENT] = accepted
        self._place = place
        self._detail: str | None = None
        log = shared.log.named(ident)
        speaks_first = accepted is not None and not shared.config.client
        self._presence = Presence(log, shared.readiness.loop, speaks_first=speaks_first)
        self._securing = Securing(shared, log, ident, self._presence, place)
        self._tls: Stream | None = None
        self._endpoint: Endpoint | None = None
        self._leave: Callable[[Endpoint], None] | None = None
        self._target = "the target"
        self._asked = 0.0
        self._relay: Relay | VpnLink | None = None
        self._program: Program | None = None
        self._hurried = False
        self.parting = False
        """Whether it was told to end, and its peers are told."""
        self.over = False
        """Whether nothing is carried any more: its ends are being closed."""
        self.peer = shown(shared, accepted, address)
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
            end = await self._serve_unless_silent()
        except TlsError as error:
            end = End.TLS_FAILED
            self._fail(end, str(error), self._securing.fault)
        except LeftError as error:
            end = End.LEFT
            self.log.info(f"{self.peer} left before TLS: {error}")
        except NegotiationError as error:
            end = End.NEGOTIATION_FAILED
            server = f" (server {self._target})" if Side.SERVER in self._streams else ""
            self._fail(end, f"Negotiation failed for {self.peer}{server}: {error}", str(error))
        except RefusedError as error:
            end = End.REFUSED
            self._shared.refused(self.peer, error, self.log)
        except BackendError as error:
            if isinstance(error, ConnectError):
                self._shared.counters.unreached[error.cause.name.lower()] += 1
            if Side.CLIENT in self._addressed:
                end = End.NEGOTIATION_FAILED  # it was told, and is not reset
            self._fail(end, str(error), error.why)
        except OSError as error:
            self._fail(end, f"{os_reason(error)} ({error.errno})")
        except asyncio.CancelledError as error:
            end = End.CLOSED
            self._hurried = not self._part_if_new(error.args[0] if error.args else WITH_WORKER)
            raise
        finally:
            if self._place is not None:
                self._place.secured()  # one that failed: the time to read its alert is no part of it
            await self._close(end)

    def wind_up(self, why: str = WITH_WORKER) -> bool:
        """End it in good order, for the log with the words `why`; False where nothing is carried yet: its
        task is to be cancelled then, as one that does not come to its end by this.
        """
        if self.over:
            return True
        if self._relay is None:
            return False
        self._part_if_new(why)
        self._relay.wind_up()
        return True

    def _part_if_new(self, why: str) -> bool:
        """Have the peers told the end and given a moment to read it; false where they had that already."""
        new, self.parting = not self.parting, True
        if new:
            self.log.notice(f"Connection ended {why}")
        return new

    def _fail(self, end: End, reason: str, why: str | None = None) -> None:
        self._detail = reason
        self.log.error(reason)
        self._shared.failed(self.peer, end, why or reason)

    async def _serve_unless_silent(self) -> End:
        """As `_serve`; that a client leaves who has sent nothing is no failure."""
        try:
            return await self._serve()
        except (TlsError, NegotiationError, RefusedError, OSError):
            if self._presence.silent:
                return End.SILENT
            raise

    @property
    def service(self) -> str:
        """The name of the service that the connection has come to."""
        return self._shared.config.name

    @property
    def sent(self) -> tuple[int, int]:
        """Bytes handed on so far: to the TLS side, and to the plain side."""
        return (self._relay.sent_to_tls, self._relay.sent_to_plain) if self._relay is not None else (0, 0)

    @property
    def vpn(self) -> VpnLink | None:
        """The link of a VPN that it has become."""
        return None if isinstance(self._relay, Relay) else self._relay

    @property
    def carrying(self) -> bool:
        """Whether both sides are there, and TLS on one of them."""
        return self._relay is not None

    @property
    def target(self) -> str | None:
        """Where it leads, once it is connected."""
        return self._target if Side.SERVER in self._streams else None

    @property
    def server_name(self) -> str | None:
        """The name that was asked for in the handshake, as far as it is known."""
        return self._securing.server_name

    @property
    def engine(self) -> Engine | None:
        """Its TLS, once that has begun."""
        return self._securing.engine

    async def _serve(self) -> End:
        if self._accepted is not None:
            await self._arrive(self._accepted)
            name = self._shared.config.name
            self.log.notice(f"Service [{name}] accepted connection from {self.peer}")
        await self._establish()
        return await self._carry()

    async def _establish(self) -> None:
        """Have both sides connected, and TLS on one of them, as the protocol says."""
        conversation = Conversation(self, self._shared.config.timeout_busy)
        carried = await self._follow(conversation, self._shared.protocol.before)
        try:
            await self._secure()
        except TlsError:
            if (words := self._shared.protocol.unsecured) is not None:
                with contextlib.suppress(NegotiationError):
                    await conversation.follow(say(Side.CLIENT, words))
            raise
        if self._place is not None:
            self._place.secured()
        await self._follow(conversation, self._shared.protocol.after, carried)

    async def _follow(self, conversation: Conversation, script: Callable[..., Script], *carried: Any) -> Any:
        """Follow a script; where there is nothing to say, as in most services, it takes none to do so."""
        if script is nothing:
            return None
        if script is connecting:
            return await self.connect(None)
        secured = map(self._securing.result, carried)
        return await conversation.follow(script(self._ends, *secured))

    async def _arrive(self, accepted: Stream) -> None:
        """Hold that the client may come in: the one whom the proxy in front of it names, if there is one."""
        self._ends = await arrive(self._shared, accepted, self._address, self._presence)
        self._address = self._ends.source
        self.peer = shown(self._shared, accepted, self._address)
        if self._place is not None and self._shared.config.proxy.accept and self._address is not None:
            self._place.attribute(self._address)
        await self._shared.access.admit(self._ends, self.log)

    async def _secure(self) -> None:
        config = self._shared.config
        if not config.client:
            self._tls = self._stream(Side.CLIENT)
            await self._securing.accept(self._tls, self.peer, self._ends)
            return
        self._tls = self._stream(Side.SERVER)
        name, endpoint = self.name(Side.SERVER), self._endpoint
        behind_proxy = config.protocol.target if config.protocol is not None else None
        if behind_proxy is not None and endpoint is not None:
            name, endpoint = f"{behind_proxy} through {name}", replace(endpoint, target=behind_proxy)
        await self._securing.connect(self._tls, name, endpoint)

    # --- what scripts ask for ---

    def peer_of(self, side: Side) -> Peer:
        """How a side is talked to: inside TLS once that is there (of `Scene`)."""
        self._addressed.add(side)
        stream, readiness = self._stream(side), self._shared.readiness
        if stream is self._tls:
            return TlsPeer(readiness, stream, self._securing.established)
        return ClearPeer(readiness, stream, self._presence if side is Side.CLIENT else None)

    def name(self, side: Side) -> str:
        """How the log calls a side (of `Scene`)."""
        return self.peer if side is Side.CLIENT else self._target

    async def connect(self, target: HostPort | None) -> SocketAddress | None:
        """Reach the target (of `Scene`): a client whose certificate failed gets one of its own."""
        shared = self._shared
        redirect = shared.redirect if self._securing.redirected else None
        if redirect is None and shared.config.exec is not None and not shared.config.connect:
            self._target = f"program {shared.config.exec}"
            self._streams[Side.SERVER] = self._start_program(
                program_variables.of_client(self._address, self._securing.engine)
            )
            return None
        source = towards = None
        if shared.config.transparent is not Transparent.NONE:
            taken = shared.config.transparent & (
                Transparent.SOURCE if self._securing.redirected else Transparent.BOTH
            )
            source, towards = route(taken, self._accepted, self._address)
            if towards is not None:
                self.log.info(f"The client was going to {show(towards)}")
        self._asked = time.perf_counter()
        if redirect is not None:
            self.log.notice("Redirecting connection")
            return self._reached(*await redirect.connect(self.log, source), redirect.release)
        if target is not None:
            return self._reached(*await shared.requested.connect(target, self.log, source))
        reached = await shared.connector.connect(self.log, source, towards)
        return self._reached(*reached, shared.connector.release if towards is None else None)

    def _reached(
        self, sock: socket.socket, endpoint: Endpoint, leave: Callable[[Endpoint], None] | None = None
    ) -> SocketAddress:
        self._shared.counters.took(Cell.CONNECT_TIME, time.perf_counter() - self._asked)
        self._leave = leave
        self._streams[Side.SERVER], self._endpoint = sock, endpoint
        self._target = show(endpoint.sockaddr)
        if not self._securing.redirected:
            name = self._shared.config.name
            self.log.notice(f"Service [{name}] connected remote server from {show(sock.getsockname())}")
        return endpoint.sockaddr

    def _stream(self, side: Side) -> Stream:
        if side is Side.CLIENT and side not in self._streams:
            self._streams[side] = self._start_program(program_variables.of_protocol(self._securing.engine))
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
        tell = self.log.notice if status > 0 else self.log.info  # what it said of it may be in the tunnel
        tell(f"Program (PID={program.pid}) {how}")
        if isinstance(self._relay, Relay):
            self._relay.plain_exits()

    # --- carrying and closing ---

    async def _carry(self) -> End:
        shared, engine = self._shared, self._securing.established
        limits = Limits(shared.config.timeout_idle, shared.config.timeout_close)
        assert self._tls is not None  # noqa: S101  `_secure` was here
        relay: Relay | StreamLink
        if shared.tunnel is not None:
            name = self._target if shared.config.client else self.peer
            known = self._securing.verified_certificate
            relay = shared.tunnel.link(engine, self._tls, name, known, self.log)
        else:
            stream = self._stream(Side.CLIENT if shared.config.client else Side.SERVER)
            if isinstance(stream, Terminal):
                await stream.composed()
            relay = Relay(
                shared.readiness, engine, self._tls, stream, limits, carried=shared.counters.carried
            )
            if isinstance(stream, Terminal):
                stream.hang_up = partial(relay.abort, End.UNANSWERED, UNHEARD)
        self._relay = relay
        if isinstance(relay, Relay) and self._program is not None and self._program.status is not None:
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
        self.over = True
        relay, counters = self._relay, self._shared.counters
        if self._leave is not None and self._endpoint is not None:
            self._leave(self._endpoint)
        if self._program is not None:
            self._program.on_exit = None
            if end not in (End.CLOSED, End.LEFT, End.SILENT):
                self._program.signal(signal.SIGHUP)  # its other end is gone, as a terminal would tell it
        if relay is not None:
            if relay.reason is not None and end in (End.TLS_FAILED, End.RESET, End.NEGOTIATION_FAILED):
                self._shared.failed(self.peer, end, relay.reason)
            tell_end(self.log, end, self.peer, relay.reason)
            counters.truncated += relay.truncated
        counters.ended[end.value] += 1
        unnoticed = self._presence.settle()
        if end is End.REFUSED:  # there may be many, and they have their line
            await self._close_streams(end)
            return
        self._log_summary(end, Level.DEBUG if unnoticed else None)
        await self._close_streams(end)
        if self._securing.tap is not None:
            self._securing.tap.close()

    def _log_summary(self, end: End, level: Level | None) -> None:
        """The closing line in stunnel's words, and what else there is to tell: in its object, or a line."""
        relay, log = self._relay, self.log
        sent = self.sent
        level, detailed = level or Level.NOTICE, level or Level.INFO
        fields = None
        if log.enabled(level if log.structured else detailed):
            duration = self._shared.readiness.loop.time() - self.started
            detail = self._detail or (relay.reason if relay is not None else None)
            addresses = self.vpn.addresses if self.vpn is not None else ()
            summary = Summary(self.peer, self.target, end, detail, duration, sent, self._securing, addresses)
            if log.structured:
                fields = summary.fields()
            else:
                log.write(detailed, summary.text())
        orderly = end in (End.CLOSED, End.LEFT, End.UNANSWERED, End.SILENT)
        verb = "closed" if orderly else "reset"
        line = f"Connection {verb}: {sent[0]} byte(s) sent to TLS, {sent[1]} byte(s) sent to socket"
        log.write(level, line, fields)

    async def _close_streams(self, end: End) -> None:
        reset = self._shared.config.reset and end in (End.RESET, End.IDLE, End.TLS_FAILED, End.REFUSED)
        told = [] if self._hurried else self._told(end)
        for stream in self._streams.values():
            if stream in told:
                continue
            if reset and isinstance(stream, socket.socket):
                sockopt.reset_on_close(stream)
            self._shut(stream)
        if told:
            await self._part_from(told)

    async def _part_from(self, told: list[Stream]) -> None:
        loop, patience = self._shared.readiness.loop, AFTER_DRAIN if self.parting else AFTER_FAILURE
        try:
            await asyncio.gather(
                *(part(loop, one, patience) for one in told if isinstance(one, socket.socket))
            )
        finally:
            for stream in told:
                self._shut(stream)

    def _told(self, end: End) -> list[Stream]:
        """The sides that were told the reason of an end, and must have the time to read it."""
        if self.parting:
            if self._relay is None and self._tls is not None and self._securing.engine is not None:
                self._say_goodbye(self._tls)
            return list(self._streams.values())
        client = self._streams.get(Side.CLIENT)
        told: list[Stream | None] = []
        match end:
            case End.TLS_FAILED:
                spoken_to = self._relay is None and Side.CLIENT in self._addressed
                told = [self._tls, client if spoken_to else None]
            case End.LEFT | End.NEGOTIATION_FAILED:
                if self._tls is not None:
                    self._say_goodbye(self._tls)
                told = [client]
        return list({stream: None for stream in told if stream is not None})

    def _say_goodbye(self, stream: Stream) -> None:
        """Send a close_notify, as far as there is room for it; during a handshake there is none to send."""
        engine = self._securing.established
        engine.close()
        if count := engine.output():
            with contextlib.suppress(OSError):
                stream.send(engine.scratch.transformed[:count])

    def _shut(self, stream: Stream) -> None:
        self._shared.readiness.forget(stream.fileno())
        stream.close()
