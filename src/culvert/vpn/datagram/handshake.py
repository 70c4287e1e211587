"""A DTLS handshake: flights of datagrams, which the engine sends again by its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from culvert.tls.datagram import DatagramEngine
from culvert.tls.failure import TlsError

DATAGRAM_LIMIT = 1024
"""Most datagrams that a peer may send before its handshake is done."""

SILENCE = 6.0
"""Seconds for the peer to say something: the first flight has gone three times by then."""


class Handshake:
    """One handshake. `answer` is called where the engine has something to say, or to wait for."""

    def __init__(
        self, engine: DatagramEngine, loop: asyncio.AbstractEventLoop, answer: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._answer = answer
        self._done: asyncio.Future[None] = loop.create_future()
        self._datagrams = 0
        self.silence = SILENCE

    async def finished(self, timeout: float) -> None:
        """Begin, and return when it is done. Raises TlsError, TimeoutError, or what `fail` was given."""
        self._step()
        silent = self._loop.call_later(self.silence, self._not_answered)
        try:
            async with asyncio.timeout(timeout):
                await self._done
        finally:
            silent.cancel()

    def take(self, start: int, count: int) -> None:
        """Go on with a datagram, which stands in `arrived`."""
        self._datagrams += 1
        if self._done.done() or count <= 0:
            return
        if self._datagrams > DATAGRAM_LIMIT:
            self.fail(TlsError(f"more than {DATAGRAM_LIMIT} datagrams in a handshake"))
            return
        self._engine.feed(count, start)
        self._step()

    def tick(self) -> None:
        """The time has come that the engine's `timeout` told."""
        self._engine.expire()
        if self._engine.failure is not None:
            self.fail(TlsError("no answer in the handshake"))
        self._step()

    def fail(self, error: Exception) -> None:
        """It cannot be done."""
        if not self._done.done():
            self._done.set_exception(error)

    def _not_answered(self) -> None:
        if not self._datagrams:
            self.fail(TlsError(f"no answer in the handshake within {self.silence:g} s"))

    def _step(self) -> None:
        if self._done.done():
            return
        try:
            if self._engine.handshake():
                self._done.set_result(None)
        except TlsError as failure:
            self._done.set_exception(failure)
        self._answer()
