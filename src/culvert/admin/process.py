"""The process of the admin endpoint: a child of the supervisor as a worker is, with no service to serve."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from culvert.admin.attachment import LAST_WORDS
from culvert.admin.door import Door
from culvert.admin.endpoint import Endpoint
from culvert.control import Request
from culvert.ledger import Ledger
from culvert.log import Log

LOOK = 0.1
"""Seconds between two looks at whether a worker is left."""

PATIENCE = 25.0
"""Seconds for which requests may go on that were under way when another process took over."""


class AdminProcess:
    """Does what a worker does for the supervisor, with the endpoint in place of services."""

    def __init__(self, endpoint: Endpoint, door: Door, ledger: Ledger, log: Log) -> None:
        """`door` is what the endpoint serves at; nobody else in this process needs it."""
        self._endpoint = endpoint
        self._door = door
        self._ledger = ledger
        self._log = log
        self._daemon_ends = False

    def start(self) -> None:
        self._endpoint.start()

    def list_connections(self) -> None:
        """It has none of a service."""

    @property
    def open_connections(self) -> int:
        """None that the daemon's end would cut short."""
        return 0

    def abandon_listeners(self, *, daemon_ends: bool = False) -> None:
        """Leave new requests to the process of the next generation; where there is none, go on."""
        self._daemon_ends = daemon_ends
        if not daemon_ends:
            self._leave()

    def _leave(self) -> None:
        self._endpoint.leave()
        self._door.let_go()

    async def drain(self) -> None:
        """Answer what was asked already; as the daemon ends, all that is asked while a worker is left."""
        while self._daemon_ends and self._ledger.processes():
            await asyncio.sleep(LOOK)
        self._leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._endpoint.finished(traces=False)
        while self._endpoint.traces and self._ledger.processes():  # a trace goes on over a reload
            await asyncio.sleep(LOOK)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._endpoint.finished()

    def answer(self, request: Request, sock: socket.socket) -> None:
        """It has no connections to tell of."""
        sock.close()

    async def end(self) -> None:
        self._endpoint.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._endpoint.finished()
