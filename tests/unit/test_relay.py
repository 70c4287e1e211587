"""The relay over real sockets: the rows of the closing table, back-pressure, deadlines, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from culvert.readiness import Readiness
from culvert.relay import Limits, Relay
from culvert.spawn import ProgramSocket
from culvert.stream import End
from culvert.tls.context import TlsContext
from culvert.tls.engine import CHUNK, Status

from . import streams
from .loops import Run
from .tls.certificates import certify, common_name, write_identity
from .tls.ends import TLS12, TLS13, Pair, chunks, context, give, output

PATIENT = Limits(idle=15, close=15)
MEGABYTE = 1 << 20
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])

Contexts = tuple[TlsContext, TlsContext]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contexts]:
    """For each version, a client's context and a server's."""
    folder: Path = tmp_path_factory.mktemp("relay")
    cert = f"cert = {write_identity(folder / 'server.pem', certify(common_name('server')))}"
    return {v: (context(v, client=True), context(v, cert)) for v in (TLS12, TLS13)}


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Tunnel:
    """A relay in the server's role at work, and its two peers: `tls` speaks by `speak` and `hear`."""

    def __init__(self, contexts: Contexts, limits: Limits = PATIENT, *, program: bool = False) -> None:
        self._pair = Pair(*contexts).shake_hands()
        self.readiness = Readiness(asyncio.get_running_loop())
        ours_tls, self.tls = streams.tcp_pair()
        ours_plain, self.plain = streams.unix_pair() if program else streams.tcp_pair()
        self.sockets = (ours_tls, ours_plain, self.tls, self.plain)
        self.engine = self._pair.server.engine
        plain = ProgramSocket(ours_plain) if program else ours_plain
        self.relay = Relay(self.readiness, self.engine, ours_tls, plain, limits)
        self.told: list[str] = []
        self.task = asyncio.create_task(self.relay.run(self))

    def tls_answered(self) -> None:
        self.told.append("answered")

    def tls_truncated(self) -> None:
        self.told.append("truncated")

    def sealed(self, data: bytes, *, close: bool = False) -> bytes:
        """What the TLS peer sends for this, with its close_notify."""
        client = self._pair.client
        parts = [client.encrypt(chunk) for chunk in chunks(data)]
        if close:
            client.engine.close()
            parts.append(output(client.engine))
        return b"".join(parts)

    async def speak(self, data: bytes, *, close: bool = False) -> None:
        await streams.send(self.tls, self.sealed(data, close=close))

    async def hear(self, count: int | None = None) -> bytes:
        """`count` bytes of plaintext, or all until the relay's close_notify."""
        client, data = self._pair.client, bytearray()
        while (count is None or len(data) < count) and client.engine.status is Status.OPEN:
            sealed = await asyncio.get_running_loop().sock_recv(self.tls, 65536)
            assert sealed, "the stream ended without a close_notify"
            data += client.decrypt(sealed)
        return bytes(data)

    @property
    def alert(self) -> str:
        """What the relay's side said went wrong."""
        return str(self._pair.client.engine.failure)


@contextlib.asynccontextmanager
async def tunnel(
    contexts: Contexts, limits: Limits = PATIENT, *, program: bool = False
) -> AsyncIterator[Tunnel]:
    """`program` has a socket pair on the plain side, as an exec'd program has."""
    made = Tunnel(contexts, limits, program=program)
    with streams.closing(*made.sockets):
        try:
            yield made
        finally:
            made.task.cancel()
            await asyncio.wait([made.task])
            made.readiness.close()


@VERSIONS
def test_bytes_arrive_in_both_directions_at_once(
    run: Run, contexts: dict[str, Contexts], version: str
) -> None:
    async def main() -> None:
        async with tunnel(contexts[version]) as t:
            up, down = noise(3 * MEGABYTE), noise(3 * MEGABYTE + 1)
            heard, received, _, _ = await asyncio.gather(
                t.hear(len(down)),
                streams.receive(t.plain, len(up)),
                t.speak(up),
                streams.send(t.plain, down),
            )
            assert heard == down
            assert received == up
            assert (t.relay.sent_to_tls, t.relay.sent_to_plain) == (len(down), len(up))

    run(main())


@VERSIONS
def test_when_the_plain_side_ends_first_the_other_direction_goes_on(
    run: Run, contexts: dict[str, Contexts], version: str
) -> None:
    async def main() -> None:
        async with tunnel(contexts[version]) as t:
            await streams.send(t.plain, b"request")
            t.plain.shutdown(socket.SHUT_WR)
            assert await t.hear() == b"request"
            data = noise(3 * MEGABYTE)
            received, _ = await asyncio.gather(streams.receive_all(t.plain), t.speak(data, close=True))
            assert received == data
            assert await t.task is End.CLOSED
            assert not t.relay.truncated

    run(main())


@VERSIONS
def test_when_the_tls_side_ends_first_the_other_direction_goes_on(
    run: Run, contexts: dict[str, Contexts], version: str
) -> None:
    async def main() -> None:
        async with tunnel(contexts[version]) as t:
            await t.speak(b"request", close=True)
            assert await streams.receive_all(t.plain) == b"request"
            data = noise(3 * MEGABYTE)

            async def answer() -> None:
                await streams.send(t.plain, data)
                t.plain.shutdown(socket.SHUT_WR)

            heard, _ = await asyncio.gather(t.hear(), answer())
            assert heard == data
            assert await t.task is End.CLOSED

    run(main())


def test_an_end_without_close_notify_is_truncation(run: Run, contexts: dict[str, Contexts]) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13]) as t:
            await t.speak(b"half of it")
            t.tls.shutdown(socket.SHUT_WR)
            assert await streams.receive_all(t.plain) == b"half of it"
            await streams.send(t.plain, b"answer")
            t.plain.shutdown(socket.SHUT_WR)
            assert await t.hear() == b"answer"
            assert await t.task is End.CLOSED
            assert t.relay.truncated
            assert t.told == ["answered", "truncated"]

    run(main())


@pytest.mark.parametrize("side", ["tls", "plain"])
def test_a_reset_ends_it(run: Run, contexts: dict[str, Contexts], side: str) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13]) as t:
            streams.reset(getattr(t, side))
            assert await t.task is End.RESET
            assert t.relay.reason is not None
            assert t.relay.reason.lower().startswith(side)
            assert "Connection reset by peer" in t.relay.reason

    run(main())


@pytest.mark.parametrize("side", ["tls", "plain"])
def test_a_reset_is_noticed_while_nobody_wants_to_read(
    run: Run, contexts: dict[str, Contexts], side: str
) -> None:
    """Back-pressure: the other side takes nothing, so the one that resets is not being read."""

    async def main() -> None:
        async with tunnel(contexts[TLS13]) as t:
            if side == "tls":
                flood = asyncio.create_task(t.speak(noise(16 * MEGABYTE)))
            else:
                flood = asyncio.create_task(streams.send(t.plain, noise(16 * MEGABYTE)))
            await standstill(t)
            flood.cancel()
            await asyncio.wait([flood])
            streams.reset(getattr(t, side))
            assert await t.task is End.RESET

    run(main())


async def standstill(t: Tunnel) -> tuple[int, int]:
    """Wait until the relay has moved nothing for a while; what it had moved by then."""
    before = (-1, -1)
    while before != (now := (t.relay.sent_to_tls, t.relay.sent_to_plain)) or now == (0, 0):
        before = now
        await asyncio.sleep(0.1)
    return now


def test_a_side_that_takes_nothing_stops_the_other(run: Run, contexts: dict[str, Contexts]) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13]) as t:
            t.plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            data = noise(24 * MEGABYTE)
            speaking = asyncio.create_task(t.speak(data))
            _, taken = await standstill(t)
            assert taken < len(data) - CHUNK
            assert not speaking.done()
            received = await streams.receive(t.plain, len(data))
            assert received == data
            await speaking

    run(main())


def test_a_program_that_leaves_input_unread_loses_nothing_of_its_output(
    run: Run, contexts: dict[str, Contexts]
) -> None:
    """The system reports an error for the input; what the program wrote is still to be had, in time."""

    async def main() -> None:
        async with tunnel(contexts[TLS13], program=True) as t:
            t.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            t.tls.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            await t.speak(b"never read")
            writing = asyncio.create_task(streams.send(t.plain, noise(4 * MEGABYTE)))
            await standstill(t)
            writing.cancel()
            await asyncio.wait([writing])
            taken = t.relay.sent_to_tls + streams.unread(t.sockets[1])
            t.plain.close()
            await asyncio.sleep(0.05)
            assert not t.task.done(), t.relay.reason
            assert await t.hear() == noise(4 * MEGABYTE)[:taken]

    run(main())


@VERSIONS
def test_a_broken_record_is_answered_by_an_alert(
    run: Run, contexts: dict[str, Contexts], version: str
) -> None:
    async def main() -> None:
        async with tunnel(contexts[version]) as t:
            sealed = bytearray(t.sealed(b"data"))
            sealed[-1] ^= 1
            await streams.send(t.tls, bytes(sealed))
            assert await t.task is End.TLS_FAILED
            assert "bad record mac" in (t.relay.reason or "")
            assert await t.hear() == b""
            assert "alert bad record mac" in t.alert

    run(main())


def test_silence_ends_it(run: Run, contexts: dict[str, Contexts]) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13], Limits(idle=0.3, close=15)) as t:
            for _ in range(4):  # together longer than the limit
                await asyncio.sleep(0.15)
                await t.speak(b"x")
            assert not t.task.done()
            assert await t.task is End.IDLE

    run(main())


@pytest.mark.parametrize("first", ["tls", "plain"])
def test_an_end_that_is_not_answered_ends_it(run: Run, contexts: dict[str, Contexts], first: str) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13], Limits(idle=15, close=0.3)) as t:
            if first == "tls":
                await t.speak(b"", close=True)
                assert await streams.receive_all(t.plain) == b""
            else:
                t.plain.shutdown(socket.SHUT_WR)
                assert await t.hear() == b""
            assert await t.task is End.UNANSWERED

    run(main())


def test_the_time_to_answer_runs_from_the_last_byte(run: Run, contexts: dict[str, Contexts]) -> None:
    """A download that goes on after the request's end must not be cut short."""

    async def main() -> None:
        async with tunnel(contexts[TLS13], Limits(idle=15, close=0.4)) as t:
            await t.speak(b"request", close=True)
            for _ in range(6):
                await asyncio.sleep(0.15)
                await streams.send(t.plain, b"a piece of the answer")
            t.plain.shutdown(socket.SHUT_WR)
            assert await t.hear() == b"a piece of the answer" * 6
            assert await t.task is End.CLOSED

    run(main())


def test_a_time_to_answer_of_nothing_delivers_what_was_said(run: Run, contexts: dict[str, Contexts]) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13], Limits(idle=15, close=0)) as t:
            data = noise(MEGABYTE)
            received, _ = await asyncio.gather(streams.receive_all(t.plain), t.speak(data, close=True))
            assert received == data
            assert await t.task is End.UNANSWERED

    run(main())


@VERSIONS
def test_an_answer_and_its_end_in_one_piece_is_told_as_an_answer(
    run: Run, contexts: dict[str, Contexts], version: str
) -> None:
    """Whoever keeps sessions waits for it; most short exchanges end like this."""

    async def main() -> None:
        async with tunnel(contexts[version]) as t:
            t.plain.shutdown(socket.SHUT_WR)
            assert await t.hear() == b""
            await t.speak(b"answer", close=True)
            assert await streams.receive_all(t.plain) == b"answer"
            assert await t.task is End.CLOSED
            assert t.told == ["answered"]

    run(main())


def test_what_a_broken_plain_side_did_not_take_is_not_counted(
    run: Run, contexts: dict[str, Contexts]
) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13]) as t:
            t.sockets[1].shutdown(socket.SHUT_WR)  # every send to the plain side fails from now on
            await t.speak(b"lost")
            await streams.send(t.plain, b"still heard")
            assert await t.hear(11) == b"still heard"
            assert t.relay.sent_to_plain == 0
            assert t.relay.sent_to_tls == 11

    run(main())


def test_what_came_with_the_handshakes_end_is_carried(run: Run, contexts: dict[str, Contexts]) -> None:
    async def main() -> None:
        pair = Pair(*contexts[TLS13])
        hello = pair.client.step(b"")
        finished = pair.client.step(pair.server.step(hello)) + pair.client.encrypt(b"at once")
        pair.server.step(finished)
        assert pair.server.finished
        readiness = Readiness(asyncio.get_running_loop())
        ours_tls, tls = streams.tcp_pair()
        ours_plain, plain = streams.tcp_pair()
        with streams.closing(ours_tls, tls, ours_plain, plain):
            task = asyncio.create_task(
                Relay(readiness, pair.server.engine, ours_tls, ours_plain, PATIENT).run(Deaf())
            )
            assert await streams.receive(plain, 7) == b"at once"
            task.cancel()
            await asyncio.wait([task])
            readiness.close()

    run(main())


def test_a_peer_that_goes_on_talking_cannot_have_answers_pile_up(
    run: Run, contexts: dict[str, Contexts]
) -> None:
    """What waits with a server's session tickets is bounded, though no data and no quiet moment come."""

    async def main() -> None:
        pair = Pair(*contexts[TLS13])
        server = pair.server.engine
        finished = pair.client.step(pair.server.step(pair.client.step(b"")))
        server.feed(give(server, finished))
        assert server.handshake()
        assert server.output_can_wait
        readiness = Readiness(asyncio.get_running_loop())
        ours_tls, tls = streams.tcp_pair()
        ours_plain, plain = streams.tcp_pair()
        with streams.closing(ours_tls, tls, ours_plain, plain):
            task = asyncio.create_task(Relay(readiness, server, ours_tls, ours_plain, PATIENT).run(Deaf()))
            for _ in range(4):
                await streams.send(tls, pair.client.encrypt(b"more"))
                assert await streams.receive(plain, 4) == b"more"
            assert tls.recv(65536), "the tickets"
            task.cancel()
            await asyncio.wait([task])
            readiness.close()

    run(main())


class Deaf:
    """Is told and does not care."""

    def tls_answered(self) -> None:
        pass

    def tls_truncated(self) -> None:
        pass


def test_a_relay_that_is_over_is_freed_without_the_collector(run: Run, contexts: dict[str, Contexts]) -> None:
    async def main() -> None:
        async with tunnel(contexts[TLS13]) as t:
            await t.speak(b"x", close=True)
            t.plain.shutdown(socket.SHUT_WR)
            assert await t.task is End.CLOSED
            reference = weakref.ref(t.engine)
        gc.collect()
        gc.disable()
        try:
            del t
            await asyncio.sleep(0)
            assert reference() is None
        finally:
            gc.enable()

    run(main())
