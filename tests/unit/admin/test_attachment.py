"""One trace made of the streams of several processes: whole lines, in order, to the end of the last."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.admin.attachment import PIECES, Attachment
from culvert.admin.request import Refused
from culvert.control import JOIN


@dataclass
class Processes:
    """What the processes of a daemon do: `sock` is what they were passed."""

    sock: socket.socket

    def join(self, message: bytes = JOIN) -> socket.socket:
        """Bring a stream; gives this end of it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            socket.send_fds(self.sock, [message], [theirs.fileno()])
        return ours


def attach(visit: Callable[[Attachment, Processes], Awaitable[None]]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        async with asyncio.timeout(10), Attachment(ours) as attachment:
            with theirs:
                await visit(attachment, Processes(theirs))

    asyncio.run(main())


async def everything(attachment: Attachment) -> list[bytes]:
    return [piece async for piece in attachment.pieces()]


def test_nobody_who_joins_is_a_refusal() -> None:
    async def visit(attachment: Attachment, processes: Processes) -> None:
        processes.sock.close()
        with pytest.raises(Refused) as refusal:
            await attachment.joined()
        assert refusal.value.status == 503

    attach(visit)


def test_it_ends_with_the_last_process() -> None:
    async def visit(attachment: Attachment, processes: Processes) -> None:
        first, second = processes.join(), processes.join()
        await attachment.joined()
        processes.sock.close()
        first.send(b"one\n")
        first.close()
        second.send(b"two\nunfini")
        second.close()
        assert sorted(await everything(attachment)) == [b"one\n", b"two\n"]

    attach(visit)


def test_what_brings_no_stream_changes_nothing() -> None:
    async def visit(attachment: Attachment, processes: Processes) -> None:
        processes.sock.send(JOIN)
        with processes.join(b"who") as stranger:
            with pytest.raises(Refused):
                await attachment.joined()
            assert await asyncio.get_running_loop().sock_recv(stranger, 10) == b""

    attach(visit)


def test_who_reads_slowly_is_waited_for() -> None:
    async def visit(attachment: Attachment, processes: Processes) -> None:
        stream = processes.join()
        await attachment.joined()
        loop = asyncio.get_running_loop()
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    await loop.sock_sendall(stream, b"x" * 999 + b"\n")
                    sent += 1000
        assert sent < (PIECES + 8) * 256 * 1024
        stream.close()
        processes.sock.close()
        taken = b"".join(await everything(attachment))
        assert sent <= len(taken) <= sent + 1000

    attach(visit)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_however_lines_are_cut_they_stay_whole(parts: list[bytes]) -> None:
    async def visit(attachment: Attachment, processes: Processes) -> None:
        stream = processes.join()
        await attachment.joined()
        processes.sock.close()
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(stream, part)
            await asyncio.sleep(0)
        stream.close()
        pieces = await everything(attachment)
        lines, end, _ = b"".join(parts).rpartition(b"\n")
        assert b"".join(pieces) == lines + end
        assert all(piece.endswith(b"\n") for piece in pieces)

    attach(visit)
