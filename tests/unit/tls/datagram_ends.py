"""Two DTLS engines that talk to each other in memory, over a way that may lose, repeat and mix up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from culvert.tls.credentials import PassPhrases
from culvert.tls.datagram import DatagramEngine, DatagramScratch
from culvert.tls.datagram_context import DatagramContext
from culvert.tls.engine import Scratch, Status
from culvert.tls.failure import TlsError

from .ends import nobody_knows, service

HERE = b"192.0.2.1:1000"
"""An address as cookies are bound to it."""

Way = Callable[[list[bytes]], Iterable[bytes]]
"""What becomes of the datagrams of one flight."""


def datagram_context(*options: str, client: bool = False) -> DatagramContext:
    return DatagramContext(service(*options, client=client), PassPhrases(nobody_knows))


def straight(flight: list[bytes]) -> Iterable[bytes]:
    return flight


def give(buffers: DatagramScratch, datagram: bytes) -> int:
    buffers.arrived[: len(datagram)] = datagram
    return len(datagram)


@dataclass
class DatagramEnd:
    """One side: what it made of its peer's datagrams. A server has no engine before a valid cookie."""

    context: DatagramContext
    buffers: DatagramScratch
    engine: DatagramEngine | None = None
    finished: bool = False
    failure: TlsError | None = None

    @classmethod
    def of(cls, context: DatagramContext, *, client: bool, server_name: str | None = None) -> DatagramEnd:
        buffers = DatagramScratch(Scratch())
        return cls(context, buffers, context.datagram_engine(buffers, server_name) if client else None)

    @property
    def open(self) -> DatagramEngine:
        assert self.engine is not None
        return self.engine

    def step(self, datagram: bytes = b"", whose: bytes = HERE) -> list[bytes]:
        """Take one datagram; gives the answers to it."""
        count = give(self.buffers, datagram)
        if self.engine is None:
            answer = self.context.greet(0, count, whose, self.buffers, time.monotonic())
            if isinstance(answer, bytes):
                return [answer] if answer else []
            self.engine = answer
        elif self.finished:
            self.engine.unseal(0, count, 0)
            return self.engine.datagrams()
        elif count:
            self.engine.feed(count)
        return self._shake()

    def expire(self) -> list[bytes]:
        """What it says again, its time having come."""
        if self.engine is None or self.finished or self.engine.timeout() is None:
            return []
        self.engine.expire()
        return self._shake()

    def _shake(self) -> list[bytes]:
        assert self.engine is not None
        if not self.finished and self.failure is None:
            try:
                self.finished = self.engine.handshake()
                if self.finished:
                    self.context.prove(self.engine)
            except TlsError as failure:
                self.failure = failure
        return self.engine.datagrams()

    def seal(self, data: bytes) -> bytes:
        self.buffers.scratch.received[: len(data)] = data
        return bytes(self.buffers.sealed[: self.open.seal(0, len(data), 0)])

    def unseal(self, datagram: bytes) -> bytes:
        return bytes(self.buffers.opened[: self.open.unseal(0, give(self.buffers, datagram), 0)])


class DatagramPair:
    """A client and a server, and the way between them."""

    def __init__(self, client: DatagramContext, server: DatagramContext, way: Way = straight) -> None:
        self.client = DatagramEnd.of(client, client=True)
        self.server = DatagramEnd.of(server, client=False)
        self.way = way

    def shake_hands(self, patience: float = 0.0) -> DatagramPair:
        """Carry flights until nobody says more, waiting `patience` seconds for what is said again."""
        until = time.monotonic() + patience
        to_server, to_client = self.client.step(), list[bytes]()
        while True:
            for _ in range(100):
                if not to_server and not to_client:
                    break
                to_client += [answer for one in self.way(to_server) for answer in self.server.step(one)]
                to_server = [answer for one in self.way(to_client) for answer in self.client.step(one)]
                to_client = []
            if self.accepted or self.client.failure or self.server.failure or time.monotonic() > until:
                return self
            time.sleep(0.02)
            to_server, to_client = self.client.expire(), self.server.expire()

    @property
    def accepted(self) -> bool:
        return all(
            end.finished and end.failure is None and end.open.status is Status.OPEN
            for end in (self.client, self.server)
        )
