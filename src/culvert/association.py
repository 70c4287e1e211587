"""A VPN's connection over datagrams: DTLS in place of a stream, a port in place of a listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace

from culvert.address import show
from culvert.admission import Place
from culvert.connection import Connection
from culvert.errors import BackendError, os_reason
from culvert.negotiate.script import Ends
from culvert.refusals import RefusedError
from culvert.responder import ResponderClient
from culvert.revocation import Revocation
from culvert.shared import Shared
from culvert.stream import End
from culvert.tally import Cell
from culvert.targets import Endpoint
from culvert.tls.datagram import DatagramScratch
from culvert.tls.datagram_context import DatagramContext
from culvert.tls.failure import TlsError
from culvert.vpn.datagram.doorstep import PENDING_LIMIT, PENDING_SHARE
from culvert.vpn.datagram.link import IDENT, DatagramLink
from culvert.vpn.datagram.port import Port
from culvert.vpn.datagram.strangers import FLOOD
from culvert.vpn.datagram.udp import Way

PATIENCE = 4.0
"""Seconds for a server to answer: two lost datagrams are sent again within them."""

PATIENCE_FOR_ALL = 8.0
"""Seconds until no more of its addresses are tried."""

HANDSHAKE_PATIENCE = 20.0
"""Seconds, at most, for a client's handshake: it sends again after 1, 2, 4 and 8, and places are few."""

SETTLE = 1.0
"""Seconds, at most, to find out how long packets may be before the first message says it."""


class UnansweredError(Exception):
    """Nothing comes back over UDP; the text says what was found instead."""


class Datagrams:
    """What a VPN's associations have in common: the service as it is over DTLS, and a server's ports."""

    def __init__(self, shared: Shared, context: DatagramContext, responders: ResponderClient) -> None:
        revocation = Revocation(shared.config, context, responders, shared.counters)
        self.shared = replace(shared, context=context, revocation=revocation)
        self.context = context
        self.buffers = DatagramScratch(shared.scratch)
        self._ports: list[Port] = []

    def listen(self, sockets: Iterable[socket.socket], welcome: Callable[[DatagramLink], None]) -> None:
        """Take datagrams: `welcome` gets the link of each client that has shown its cookie."""
        strays = self.shared.counters.row[Cell.VPN_STRAYS : Cell.VPN_STRAYS + 1]
        for sock in sockets:
            port = Port(sock.dup(), self.buffers, self.shared.readiness.loop)
            port.count_strays(strays)
            port.listen(self.context.greet, welcome, self._crowded, self._flooded)
            self._ports.append(port)

    def _crowded(self, way: Way) -> None:
        name = self.shared.config.name
        self.shared.refusals.refuse(
            "handshakes over UDP",
            f"Service [{name}] ended the oldest handshake over UDP, with {show(way.peer)}: "
            f"{PENDING_LIMIT} at once are the most, and {PENDING_SHARE} of one network",
        )

    def _flooded(self, way: Way) -> None:
        self.shared.log.warning(
            f"VPN: more than {FLOOD} datagrams of nobody within a second, one of them from {show(way.peer)}"
        )

    def open(self, family: int) -> Port:
        """A client's port. Raises OSError."""
        sock = self.shared.connector.dialer.open_datagrams(family)
        return Port(sock, self.buffers, self.shared.readiness.loop)

    def stop_accepting(self) -> None:
        """Greet nobody any more; the links there are go on."""
        for port in self._ports:
            port.stop_greeting()

    def close(self) -> None:
        """Take no more datagrams."""
        for port in self._ports:
            port.close()

    def lines(self) -> list[str]:
        """What came that was nobody's, for the list of connections."""
        strays = self.shared.counters.row[Cell.VPN_STRAYS]
        return [f"Service [{self.shared.config.name}]: {strays} stray datagram(s)"] if strays else []


class Association(Connection):
    """One connection over DTLS. `run` it once."""

    __slots__ = ("_datagrams", "_link", "_moving", "_port")

    def __init__(
        self, datagrams: Datagrams, link: DatagramLink | None, ident: str, place: Place | None = None
    ) -> None:
        """`link` is that of a client who has shown its cookie; a client itself has none yet."""
        address = link.way.peer if link is not None else None
        super().__init__(datagrams.shared, None, address, ident, place)
        self._datagrams = datagrams
        self._link = link
        self._port: Port | None = None
        self._moving: asyncio.Task[None] | None = None

    async def _serve(self) -> End:
        try:
            link = self._link
            if link is not None:
                await self._take(link)
            else:
                link = self._link = await self._dial()
            return await self._hold(link)
        except UnansweredError as error:
            self._detail = str(error)
            self.log.notice(f"VPN: {error}")
            return End.RESET
        finally:
            if self._moving is not None:
                self._moving.cancel()
            if self._link is not None:
                self._link.release()
            if self._port is not None:
                self._port.close()

    async def _take(self, link: DatagramLink) -> None:
        """Shake hands with a client."""
        shared = self._shared
        self._ends = Ends(self._address, None)
        await shared.access.admit(self._ends, self.log)
        self.log.notice(f"Service [{shared.config.name}] accepted association from {self.peer}")
        await self._securing.associate(link.engine, self._in_time(link), self.peer)
        if self._place is not None:
            self._place.secured()
        if not link.establish():
            raise BackendError(f"{self.peer} has drawn a number that another client has: it will try again")

    async def _in_time(self, link: DatagramLink) -> None:
        patience = min(self._shared.config.timeout_busy, HANDSHAKE_PATIENCE)
        try:
            await link.shake_hands(patience)
        except TimeoutError:
            raise TlsError(f"no end of the handshake within {patience:g} s") from None

    async def _dial(self) -> DatagramLink:
        """Shake hands with the first server that answers. Raises UnansweredError and TlsError."""
        loop = self._shared.readiness.loop
        until = loop.time() + PATIENCE_FOR_ALL
        reasons = []
        for endpoint in await self._endpoints():
            if loop.time() > until:
                break
            try:
                return await self._dial_one(endpoint)
            except UnansweredError as error:
                reasons.append(str(error))
        raise UnansweredError("; ".join(reasons) or "the server's name has no address")

    async def _dial_one(self, endpoint: Endpoint) -> DatagramLink:
        shared, datagrams = self._shared, self._datagrams
        if not isinstance(endpoint.sockaddr, tuple):
            raise UnansweredError(f"{endpoint.sockaddr} is no address of UDP")
        self._endpoint, self._target = endpoint, show(endpoint.sockaddr)
        self.log.info(f"Connecting to {self._target} over UDP")
        try:
            port = datagrams.open(endpoint.family)
        except OSError as error:
            raise UnansweredError(f"UDP to {self._target}: {os_reason(error)}") from None
        engine = datagrams.context.datagram_engine(
            datagrams.buffers, shared.config.sni or endpoint.server_name
        )
        link = port.dial(engine, Way(endpoint.sockaddr), os.urandom(IDENT))
        try:
            await self._securing.associate(engine, self._answered(link), self._target, endpoint)
        except BaseException:
            link.release()
            port.close()
            raise
        self._port = port
        return link

    async def _answered(self, link: DatagramLink) -> None:
        try:
            await link.shake_hands(PATIENCE)
        except TimeoutError:
            reason = f"no answer over UDP from {self._target} within {PATIENCE:g} s"
            raise UnansweredError(reason) from None
        except OSError as error:
            raise UnansweredError(f"UDP to {self._target}: {os_reason(error)}") from None

    async def _endpoints(self) -> list[Endpoint]:
        """The addresses of the service's targets, in the order in which these stand."""
        connector = self._shared.connector
        found: list[Endpoint] = []
        for target in connector.targets:
            answer = connector.lookups.start(target.address)
            with contextlib.suppress(OSError):
                async with asyncio.timeout(self._shared.config.timeout_connect):
                    found += await asyncio.shield(answer)
        return found

    async def _hold(self, link: DatagramLink) -> End:
        """Carry messages until the end."""
        link.open()
        await link.settle(SETTLE)
        shared = self._shared
        assert shared.tunnel is not None  # noqa: S101  datagrams are a VPN's
        name = self._target if shared.config.client else self.peer
        if not shared.config.client:
            link.on_moving, link.on_move = self._consider, self._moved
        if shared.config.vpn is not None and not shared.config.vpn.parities:
            link.without_parities()
        shared.tunnel.associate(link, name, self._securing.verified_certificate, self.log)
        self._relay = link
        end = await link.run()
        if link.unanswered:
            shared.tunnel.on_unanswered()
        return end

    def _consider(self, way: Way) -> None:
        """Go along with a client that moves, if it could have come from there. One question is asked at a
        time: a client that has moved on by then is noticed again.
        """
        if self._moving is None or self._moving.done():
            self._moving = self._shared.readiness.loop.create_task(self._go_along(way))

    async def _go_along(self, way: Way) -> None:
        shared, link = self._shared, self._link
        assert link is not None  # noqa: S101  it is that of the link
        ends = Ends(way.peer, None)
        try:
            await shared.access.admit(ends, self.log)
            if self._place is not None:
                self._place.attribute(way.peer)
        except RefusedError as error:
            shared.refused(show(way.peer), error, self.log)
            link.abort(f"{self.peer} is at {show(way.peer)} now, which is refused: {error}")
            return
        self._ends = ends
        link.move(way)

    def _moved(self, way: Way) -> None:
        before, self.peer = self.peer, show(way.peer)
        if self._shared.tunnel is not None:
            self._shared.tunnel.hub.tally.moved()
        self.log.notice(f"VPN: {before} is at {self.peer} now")
