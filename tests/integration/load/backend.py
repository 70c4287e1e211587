"""The plain end behind the tunnel."""

from __future__ import annotations

import asyncio
import random
import socket

from .frames import (
    HEADER,
    PATIENCE,
    SHORT,
    CorruptError,
    Ends,
    Frames,
    Record,
    TruncatedError,
    fault_of,
    payload,
    sending_frames,
    take_frames,
)
from .wires import PlainWire


class Backend:
    """The plain end behind the tunnel."""

    def __init__(self, records: dict[int, Record], seed: int) -> None:
        self._records = records
        self._random = random.Random(seed)
        self.serving: set[asyncio.Task[None]] = set()

    async def run(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listening)
            sock.setblocking(False)
            task = loop.create_task(self._serve(sock))
            self.serving.add(task)
            task.add_done_callback(self.serving.discard)

    async def _serve(self, sock: socket.socket) -> None:
        wire, record = PlainWire(sock), None
        try:
            port = sock.getpeername()[1]
            frames = Frames(wire)
            ident, number, kind, data = await frames.next()
            record = self._records[ident]
            record.backend_port = port
            if kind == SHORT:
                await self._answer(wire, record, number, data)
            else:
                await self._converse(wire, record, frames)
        except (OSError, TruncatedError, CorruptError) as error:
            if record is not None:  # nothing was said: the client knows what came of it
                record.backend_fault = fault_of(error)
        finally:
            sock.close()

    async def _answer(self, wire: PlainWire, record: Record, asked: int, data: bytes) -> None:
        if data != payload(record.ident, 0, len(data), 0):
            raise CorruptError("another request")
        record.up_got = len(data)
        record.down_sent = asked
        reply = payload(record.ident, 0, asked, 1)
        await wire.send(HEADER.pack(record.ident, 0, SHORT, asked) + reply)
        if record.ident % 2:  # the client is the first to end
            async with asyncio.timeout(PATIENCE):
                if await wire.recv():
                    raise CorruptError("bytes behind the end")
        else:
            async with asyncio.timeout(PATIENCE):
                await wire.end()

    async def _converse(self, wire: PlainWire, record: Record, frames: Frames) -> None:
        ends = Ends(1, random.Random(self._random.random()))
        async with sending_frames(wire, record, ends) as sending:
            await take_frames(frames, record, 0)
            ends.over.set()
            record.down_sent = await sending
            async with asyncio.timeout(PATIENCE):
                await wire.end()
