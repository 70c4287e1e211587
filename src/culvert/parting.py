"""The last moment of a connection: a peer that was told something has the time to read it.

A close with bytes unread would send an RST, which can overtake what was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer may go on sending: seconds in all, seconds without a byte, and bytes."""

    longest: float
    quiet: float
    limit: float = math.inf


AFTER_FAILURE = Patience(longest=2.0, quiet=2.0, limit=1024 * 1024)
"""For a peer that was sent an alert, or the refusal of a protocol."""

AFTER_DRAIN = Patience(longest=2.0, quiet=0.25)
"""For a peer whose connection is ended because the worker ends: one that is idle must not hold that up."""


async def part(loop: asyncio.AbstractEventLoop, sock: socket.socket, patience: Patience) -> None:
    """Say that nothing more comes, and throw away what is still received until the peer has ended, too."""
    with contextlib.suppress(OSError):  # TimeoutError is one
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(patience.longest):
            taken = 0
            while taken < patience.limit:
                async with asyncio.timeout(patience.quiet):
                    data = await loop.sock_recv(sock, 65536)
                if not data:
                    return
                taken += len(data)
