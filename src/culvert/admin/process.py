"""The process of the admin endpoint: a child of the supervisor as a worker is, with no service to serve."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from culvert.admin.door import Door
from culvert.admin.endpoint import Endpoint
from culvert.admin.operations import Supervised
from culvert.admin.overview import Overview
from culvert.control import Request
from culvert.ledger import Ledger
from culvert.log import Channel

PATIENCE = 25.0
"""Seconds for which requests may go on that were under way when another process took over."""


class AdminProcess:
    """Does what a worker does for the supervisor, with the endpoint in place of services."""

    def __init__(
        self, door: Door, overview: Overview, ledger: Ledger, channel: socket.socket, log: Channel
    ) -> None:
        self._endpoint = Endpoint(door, overview, Supervised(channel, ledger), log)

    def start(self) -> None:
        self._endpoint.start()

    def list_connections(self) -> None:
        """It has none of a service."""

    def abandon_listeners(self) -> None:
        """Leave new requests to the process of the next generation."""
        self._endpoint.leave()

    async def drain(self) -> None:
        """Answer what was asked already."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._endpoint.finished()

    def answer(self, request: Request, sock: socket.socket) -> None:
        """Nobody asks this process, which is the one that asks."""
        sock.close()

    async def end(self) -> None:
        self._endpoint.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._endpoint.finished()
