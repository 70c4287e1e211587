"""What a load's connections carry, and what is known of each: numbered frames whose bytes both ends know."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

PATIENCE = 30.0
"""Seconds for one step of a connection: a machine may be busy."""

HEADER = struct.Struct("!QQLL")
"""Whose connection it is, a frame's number, its kind or the length of the reply asked for, its length."""

SHORT, OPEN, DATA, END = 1, 2, 3, 4
BLOCK = random.Random(5).randbytes(1 << 20)
"""What payloads are cut from, at a place that their connection and number give."""

LARGEST = 40_000


def payload(ident: int, number: int, length: int, side: int) -> bytes:
    """What a frame holds: `side` is 0 for the client's, 1 for the backend's."""
    at = (ident * 7919 + number * 104_729 + side * 15_485_863) % (len(BLOCK) - LARGEST)
    return BLOCK[at : at + length]


class TruncatedError(Exception):
    """The other side ended without close_notify, or in the middle of something."""


class CorruptError(Exception):
    """Something else came than was sent."""


@dataclass
class Record:
    """One connection; times are of the monotonic clock. Ports are those that the daemon sees."""

    ident: int
    kind: str
    began: float
    ended: float = 0.0
    client_port: int = 0
    backend_port: int = 0
    up_sent: int = 0
    up_got: int = 0
    down_sent: int = 0
    down_got: int = 0
    fault: str = ""
    backend_fault: str = ""

    @property
    def whole(self) -> bool:
        """Whether all arrived that was sent, and both ends saw a good end."""
        return (
            not (self.fault or self.backend_fault)
            and self.up_sent == self.up_got
            and self.down_sent == self.down_got
        )


class Carrier(Protocol):
    """As much of a wire as frames need."""

    async def send(self, data: bytes) -> None: ...
    async def recv(self) -> bytes: ...


class Frames:
    """Reads the frames that come over a wire."""

    def __init__(self, wire: Carrier) -> None:
        self._wire = wire
        self._buffer = bytearray()

    async def next(self) -> tuple[int, int, int, bytes]:
        """Raises TruncatedError where there is an end in place of a frame."""
        ident, number, kind, length = HEADER.unpack(await self._exactly(HEADER.size))
        if length > LARGEST:
            raise CorruptError(f"a frame of {length} bytes")
        return ident, number, kind, await self._exactly(length)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            async with asyncio.timeout(PATIENCE):
                data = await self._wire.recv()
            if not data:
                raise TruncatedError(f"an end where {size - len(self._buffer)} bytes are missing")
            self._buffer += data
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found


def fault_of(error: BaseException) -> str:
    """What went wrong, in a word and a sentence."""
    kinds = ((ConnectionRefusedError, "refused"), (TimeoutError, "late"), (ConnectionError, "reset"))
    kind = next((name for one, name in kinds if isinstance(error, one)), type(error).__name__)
    return f"{kind}: {error}"


@dataclass
class Ends:
    """How long frames of one end come, and from which random numbers."""

    side: int
    random: random.Random
    over: asyncio.Event = field(default_factory=asyncio.Event)


async def send_frames(wire: Carrier, record: Record, ends: Ends) -> int:
    """Sends frames until that is over, then one that says so; gives how many bytes these had."""
    sent = number = 0
    while not ends.over.is_set():
        length = ends.random.choice((10, 500, 4_000, 16_384, LARGEST))
        data = payload(record.ident, number, length, ends.side)
        async with asyncio.timeout(PATIENCE):
            await wire.send(HEADER.pack(record.ident, number, DATA, length) + data)
        sent, number = sent + length, number + 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ends.over.wait(), ends.random.uniform(0.02, 0.12))
    await wire.send(HEADER.pack(record.ident, number, END, 0))
    return sent


@contextlib.asynccontextmanager
async def sending_frames(wire: Carrier, record: Record, ends: Ends) -> AsyncIterator[asyncio.Task[int]]:
    """A task that sends frames, for as long as the context lasts."""
    task = asyncio.create_task(send_frames(wire, record, ends))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # who waited for it has it, and the other end tells of the rest


async def take_frames(frames: Frames, record: Record, side: int) -> int:
    """Takes frames to the last one, and holds each to what it must be; gives how many bytes these had."""
    got = number = 0
    while True:
        ident, found, kind, data = await frames.next()
        if (ident, found) != (record.ident, number) or data != payload(ident, number, len(data), side):
            raise CorruptError(f"frame {number} of {record.ident} is {found} of {ident}")
        if kind == END:
            return got
        got, number = got + len(data), number + 1
        if side == 0:
            record.up_got = got
        else:
            record.down_got = got
