"""Conversations for tests: one side on a real socket, in clear or inside TLS, and its other end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from culvert.address import HostPort
from culvert.conversation import ClearPeer, Conversation, Peer, TlsPeer
from culvert.errors import BackendError
from culvert.handshake import Handshake
from culvert.log import Channel
from culvert.negotiate.script import Script, Side
from culvert.readiness import Readiness
from culvert.spawn import ProgramSocket
from culvert.stream import Stream
from culvert.tls.engine import Scratch

from . import streams
from .tls.ends import End, context

CLIENT = Side.CLIENT


@dataclass
class Stage:
    """A connection as a conversation sees it: one side is there, the other may be connected to."""

    log: Channel
    peer: Peer
    connects: list[HostPort | None] = field(default_factory=list)
    delay: float = 0.0
    reachable: bool = True

    def peer_of(self, side: Side) -> Peer:
        assert side is CLIENT
        return self.peer

    def name(self, side: Side) -> str:
        return f"{side.value}:1"

    async def connect(self, target: HostPort | None) -> Any:
        self.connects.append(target)
        await asyncio.sleep(self.delay)
        if not self.reachable:
            raise BackendError("No more addresses to connect")
        return "there"

    async def follow(self, script: Script, timeout: float = 15) -> Any:
        return await Conversation(self, timeout).follow(script)


@contextlib.asynccontextmanager
async def clear(log: Channel, *, program: bool = False) -> AsyncIterator[tuple[Stage, socket.socket]]:
    """A side in clear, and its other end."""
    ours, theirs = streams.tcp_pair()
    readiness = Readiness(asyncio.get_running_loop())
    with streams.closing(ours, theirs):
        stream: Stream = ProgramSocket(ours) if program else ours
        yield Stage(log, ClearPeer(readiness, stream)), theirs
        readiness.forget(ours.fileno())
    readiness.close()


class Inside:
    """The other end of a TLS connection."""

    def __init__(self, end: End, sock: socket.socket) -> None:
        self.end = end
        self.sock = sock

    async def shake_hands(self, and_say: bytes = b"") -> None:
        """Be shaken hands with; `and_say` goes out in one segment with the last flight."""
        flight = self.end.step(b"")
        while not self.end.finished:
            await streams.send(self.sock, flight)
            received = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
            assert received
            flight = self.end.step(received)
        await streams.send(self.sock, flight + (self.end.encrypt(and_say) if and_say else b""))

    async def say(self, data: bytes) -> None:
        await streams.send(self.sock, self.end.encrypt(data))

    async def hear(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            received = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
            assert received
            data += self.end.decrypt(received)
        return data

    async def leave(self) -> None:
        self.end.engine.close()
        count = self.end.engine.output()
        await streams.send(self.sock, bytes(self.end.engine.scratch.transformed[:count]))


@contextlib.asynccontextmanager
async def inside(
    log: Channel, cert: str, version: str, *, and_say: bytes = b"", client: bool = True
) -> AsyncIterator[tuple[Stage, Inside, TlsPeer]]:
    """A side inside TLS, where we are the client or the server, and its other end."""
    readiness = Readiness(asyncio.get_running_loop())
    ours, theirs = streams.tcp_pair()
    with streams.closing(ours, theirs):
        mine, others = context(version, client=True), context(version, cert)
        if not client:
            mine, others = others, mine
        engine = mine.engine(Scratch())
        other = Inside(End(others), theirs)
        await asyncio.gather(Handshake(readiness, engine, ours).run(15), other.shake_hands(and_say))
        peer = TlsPeer(readiness, ours, engine)
        yield Stage(log, peer), other, peer
        readiness.forget(ours.fileno())
    readiness.close()
