"""What a process that serves answers to the endpoint's requests about its connections."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from culvert import listing
from culvert.control import Action, Request
from culvert.service import RunningService

PATIENCE = 2.0
"""Seconds for which an answer may wait to be taken."""

_BATCH = 16384
"""Bytes of the connections in one message, which has room for four times as many."""


def answers(services: Sequence[RunningService], request: Request, now: float) -> Iterator[dict[str, Any]]:
    """Do what is asked for, and give the messages to answer with; `now` is the event loop's time."""
    match request.action:
        case Action.LIST:
            yield from _listed(services, request, now)
        case Action.END:
            ended = sum(service.end_connection(request.ident) for service in services)
            if ended:
                yield {"ended": ended}


def _listed(services: Sequence[RunningService], request: Request, now: float) -> Iterator[dict[str, Any]]:
    chosen = [
        connection
        for service in services
        for connection in service.connections.values()
        if request.service in (None, connection.service)
    ]
    yield {"total": len(chosen)}
    chosen = chosen[: request.limit]
    batch: list[dict[str, object]] = []
    size = 0
    for one in chosen:
        facts = {"worker": os.getpid(), **listing.facts(one, now)}
        length = len(json.dumps(facts))
        if batch and size + length > _BATCH:
            yield {"connections": batch}
            batch, size = [], 0
        batch.append(facts)
        size += length + 2
    if batch:
        yield {"connections": batch}


async def send(sock: socket.socket, messages: Sequence[dict[str, Any]]) -> None:
    """Write the messages to `sock`, a datagram each, as far as they are taken in time; it is closed then."""
    loop = asyncio.get_running_loop()
    with sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(PATIENCE):
                for message in messages:
                    await loop.sock_sendall(sock, json.dumps(message).encode())
        except OSError:
            return  # nobody waits for it any more
