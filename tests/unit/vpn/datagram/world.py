"""A server's port and a client's on loopback, and what stands between them: it may lose, repeat and move."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from culvert.config.vpn import IpAddress
from culvert.tls.datagram import DatagramScratch
from culvert.tls.datagram_context import DatagramContext
from culvert.tls.engine import Scratch
from culvert.vpn.datagram.link import IDENT, DatagramLink
from culvert.vpn.datagram.port import Port
from culvert.vpn.datagram.udp import Way, open_socket
from culvert.vpn.tally import Drop
from culvert.vpn.transport import HEADROOM, Kind

from ...tls.conftest import Authority
from ...tls.datagram_ends import datagram_context

LOCALHOST = "127.0.0.1"


@dataclass
class Taker:
    """A receiver that keeps what it is given."""

    link: DatagramLink
    messages: list[tuple[Kind, bytes]] = field(default_factory=list)
    packets: list[tuple[bytes, bool]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    drops: list[tuple[Drop, int]] = field(default_factory=list)
    addresses: tuple[IpAddress, ...] = ()
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take_message(self, kind: Kind, body: bytes) -> None:
        self.messages.append((kind, body))
        self.changed.set()

    def take_packet(self, frame: memoryview, offloaded: bool) -> None:
        self.packets.append((bytes(frame), offloaded))
        self.changed.set()

    def delivered(self) -> None:
        pass

    def ready_again(self) -> None:
        self.changed.set()

    def dropped(self, why: Drop, number: int = 1) -> None:
        self.drops.append((why, number))
        self.changed.set()

    def ended(self, reason: str) -> None:
        self.reasons.append(reason)
        self.changed.set()

    async def until(self, held: Callable[[Taker], bool], timeout: float = 5.0) -> None:
        """Wait until `held` is so."""
        async with asyncio.timeout(timeout):
            while not held(self):
                self.changed.clear()
                await self.changed.wait()

    def send(self, packet: bytes, header: bytes | None = None) -> None:
        """Send a packet, with its virtio header where it has one."""
        received = self.link.engine.scratch.received
        if header is not None:
            received[HEADROOM - len(header) : HEADROOM] = header
        received[HEADROOM : HEADROOM + len(packet)] = packet
        self.link.send_packet(HEADROOM, len(packet), header is not None)
        self.link.flush()


class Middle:
    """A UDP relay between one client and the server: what it does to a datagram is for `treat` to say."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.loop = asyncio.get_running_loop()
        self.server = server
        self.client: tuple[str, int] | None = None
        self.treat: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]
        self.shut = ""
        """Which way nothing goes through any more: `to the server`, `to the client` or `both`."""
        self.seen: list[bytes] = []
        """What the client has sent."""
        self.inside = self._open(self._from_client)
        self.outside = self._open(self._from_server)

    def _open(self, readable: Callable[[], None]) -> socket.socket:
        sock = open_socket(socket.AF_INET, (LOCALHOST, 0))
        sock.setblocking(False)
        self.loop.add_reader(sock, readable)
        return sock

    @property
    def address(self) -> tuple[str, int]:
        return (LOCALHOST, self.inside.getsockname()[1])

    def move(self) -> None:
        """Let the client's datagrams come from another address from now on, and none reach the old one."""
        self.loop.remove_reader(self.outside)
        self.outside.close()
        self.outside = self._open(self._from_server)

    def close(self) -> None:
        for sock in (self.inside, self.outside):
            self.loop.remove_reader(sock)
            sock.close()

    def _from_client(self) -> None:
        for datagram, sender in _all(self.inside):
            self.client = sender
            self.seen.append(datagram)
            for one in () if self.shut in ("to the server", "both") else self.treat(datagram):
                self.outside.sendto(one, self.server)

    def _from_server(self) -> None:
        for datagram, _ in _all(self.outside):
            for one in () if self.shut in ("to the client", "both") else self.treat(datagram):
                if self.client is not None:
                    self.inside.sendto(one, self.client)


def _all(sock: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    found = []
    while True:
        try:
            found.append(sock.recvfrom(70_000))
        except OSError:
            return found


def rough(seed: int, loss: float = 0.1) -> Callable[[bytes], list[bytes]]:
    """Loses, and repeats as often."""
    chance = random.Random(seed)

    def treat(datagram: bytes) -> list[bytes]:
        drawn = chance.random()
        return [] if drawn < loss else [datagram] * (2 if drawn > 1 - loss else 1)

    return treat


@dataclass
class World:
    """A server that greets, and clients that come."""

    authority: Authority
    server: Port
    context: DatagramContext
    takers: list[Taker] = field(default_factory=list)
    tasks: list[asyncio.Task[object]] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> tuple[str, int]:
        return (LOCALHOST, self.server.udp.sock.getsockname()[1])

    async def client(self, address: tuple[str, int] | None = None, timeout: float = 5.0) -> Taker:
        """A client that has shaken hands."""
        context = datagram_context(
            self.authority.trust, "verifyChain = yes", self.authority.client_cert, client=True
        )
        buffers = DatagramScratch(Scratch())
        port = Port(open_socket(socket.AF_INET, ("", 0)), buffers, asyncio.get_running_loop())
        self.ports.append(port)
        way = Way(address or self.address)
        link = port.dial(context.datagram_engine(buffers), way, os.urandom(IDENT))
        await link.shake_hands(timeout)
        return self._attach(link)

    async def pair(self, address: tuple[str, int] | None = None) -> tuple[Taker, Taker]:
        """A client, and what the server has of it, greeted on both sides."""
        number = len(self.takers)
        client = await self.client(address)
        async with asyncio.timeout(5):
            while len([one for one in self.takers if one.link.server]) <= number // 2:
                self.came.clear()
                await self.came.wait()
        server = next(one for one in self.takers if one.link.ident == client.link.ident and one.link.server)
        client.link.send_message(Kind.HELLO, b"client")
        await server.until(lambda taker: (Kind.HELLO, b"client") in taker.messages)
        server.link.send_message(Kind.HELLO, b"server")
        await client.until(lambda taker: (Kind.HELLO, b"server") in taker.messages)
        return client, server

    def welcome(self, link: DatagramLink) -> None:
        self.tasks.append(asyncio.ensure_future(self._serve(link)))

    async def _serve(self, link: DatagramLink) -> None:
        try:
            await link.shake_hands(5)
        except Exception as error:  # each test says which it expects
            self.faults.append(error)
            link.release()
            return
        if self.server.establish(link):
            self._attach(link)
        else:
            link.release()

    def _attach(self, link: DatagramLink) -> Taker:
        taker = Taker(link)
        link.open()
        link.attach(taker)
        self.tasks.append(asyncio.ensure_future(link.run()))
        self.takers.append(taker)
        self.came.set()
        return taker


@asynccontextmanager
async def world(authority: Authority) -> AsyncIterator[World]:
    context = datagram_context(authority.server_cert, authority.trust, "verifyChain = yes")
    buffers = DatagramScratch(Scratch())
    port = Port(open_socket(socket.AF_INET, (LOCALHOST, 0)), buffers, asyncio.get_running_loop())
    made = World(authority, port, context)
    port.listen(context.greet, made.welcome)
    try:
        yield made
    finally:
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
        for one in (port, *made.ports):
            one.close()
