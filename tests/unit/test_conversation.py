"""Conversations over real sockets, in clear and inside TLS: what is taken, what is left, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.address import HostPort
from culvert.config.model import Debug
from culvert.conversation import DISCARD_LIMIT, ClearPeer, Conversation
from culvert.errors import BackendError
from culvert.log import Channel, FileSink, Log
from culvert.negotiate.script import (
    Connect,
    Discard,
    Exactly,
    Line,
    NegotiationError,
    Note,
    Peek,
    Script,
    Send,
    telling,
)

from . import streams
from .loops import Run
from .stages import CLIENT, clear, inside
from .tls.certificates import certify, common_name, write_identity
from .tls.ends import TLS12, TLS13

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Channel]:
    """A channel to the file `log`."""
    with (tmp_path / "log").open("wb") as file:
        yield Log([FileSink(file.fileno(), None)]).channel(Debug(7, 3), "1")


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("conversation")
    return f"cert = {write_identity(folder / 'server.pem', certify(common_name('server')))}"


def lines(count: int) -> Script:
    """Read lines and return them."""
    taken = []
    for _ in range(count):
        taken.append((yield Line(CLIENT, 100)))
    return taken


# --- what is taken ---


@pytest.mark.parametrize("program", [False, True], ids=["socket", "program"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_nothing_behind_the_line_is_taken(run: Run, log: Channel, size: int, program: bool) -> None:
    async def main() -> None:
        async with clear(log, program=program) as (stage, other):
            data = b"one\r\ntwo\n\nrest of it!"

            async def say() -> None:
                for start in range(0, len(data), size):
                    await streams.send(other, data[start : start + size])
                    await asyncio.sleep(0)

            taken, _ = await asyncio.gather(stage.follow(lines(3)), say())
            assert taken == [b"one", b"two", b""]
            assert isinstance(stage.peer, ClearPeer)
            assert await stage.peer.exactly(11) == b"rest of it!"

    run(main())


@VERSIONS
@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
def test_inside_tls_too(run: Run, log: Channel, cert: str, version: str, client: bool) -> None:
    async def main() -> None:
        async with inside(log, cert, version, client=client) as (stage, other, peer):
            await other.say(b"one\r\ntw")
            await other.say(b"o\r\nand the rest")
            assert await stage.follow(lines(2)) == [b"one", b"two"]
            assert await peer.exactly(12) == b"and the rest"

    run(main())


@VERSIONS
def test_what_comes_with_the_handshakes_end_is_not_lost(
    run: Run, log: Channel, cert: str, version: str
) -> None:
    async def main() -> None:
        async with inside(log, cert, version, and_say=b"hello\r\n", client=False) as (stage, _, __):
            assert await stage.follow(lines(1)) == [b"hello"]

    run(main())


@VERSIONS
def test_what_is_sent_inside_tls_arrives(run: Run, log: Channel, cert: str, version: str) -> None:
    def script() -> Script:
        yield Send(CLIENT, b"x" * 40000)

    async def main() -> None:
        async with inside(log, cert, version) as (stage, other, _):
            heard, _ = await asyncio.gather(other.hear(40000), stage.follow(script()))
            assert heard == b"x" * 40000

    run(main())


def test_more_than_a_socket_holds_is_sent_as_it_is_read(run: Run, log: Channel) -> None:
    def script() -> Script:
        yield Send(CLIENT, b"x" * 8_000_000)

    async def main() -> None:
        async with clear(log) as (stage, other):
            heard, _ = await asyncio.gather(streams.receive(other, 8_000_000), stage.follow(script()))
            assert len(heard) == 8_000_000

    run(main())


def test_a_program_that_writes_through_a_socket_of_ours_is_read_byte_by_byte(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log, program=True) as (stage, other):
            await streams.send(other, b"line\nrest")
            assert await stage.follow(lines(1)) == [b"line"]

    run(main())


@pytest.mark.parametrize("program", [False, True], ids=["socket", "program"])
def test_a_byte_can_be_looked_at_and_stays(run: Run, log: Channel, program: bool) -> None:
    def script() -> Script:
        return (yield Peek(CLIENT)), (yield Line(CLIENT))

    async def main() -> None:
        async with clear(log, program=program) as (stage, other):
            asyncio.get_running_loop().call_later(0.05, other.send, b"line\n")
            seen = b"" if program else b"l"
            assert await stage.follow(script()) == (seen, b"line")

    run(main())


# --- limits ---


@pytest.mark.parametrize("program", [False, True], ids=["socket", "program"])
def test_a_line_has_a_limit(run: Run, log: Channel, program: bool) -> None:
    async def main() -> None:
        async with clear(log, program=program) as (stage, other):
            await streams.send(other, b"x" * 98 + b"\r\n")
            assert await stage.follow(lines(1)) == [b"x" * 98]
            await streams.send(other, b"x" * 99 + b"\r\n")
            with pytest.raises(NegotiationError, match="the client sent a line of more than 100 bytes"):
                await stage.follow(lines(1))

    run(main())


@VERSIONS
def test_a_line_inside_tls_has_a_limit(run: Run, log: Channel, cert: str, version: str) -> None:
    async def main() -> None:
        async with inside(log, cert, version) as (stage, other, _):
            await other.say(b"x" * 5000)
            with pytest.raises(NegotiationError, match="the client sent a line of more than 100 bytes"):
                await stage.follow(lines(1))

    run(main())


@pytest.mark.parametrize("trickle", [False, True], ids=["silent", "trickling"])
def test_timeout_busy_is_for_all_that_is_said(run: Run, log: Channel, trickle: bool) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            began = asyncio.get_running_loop().time()

            async def say() -> None:
                for _ in range(100 if trickle else 0):
                    await streams.send(other, b"x\n")
                    await asyncio.sleep(0.05)

            saying = asyncio.create_task(say())
            with pytest.raises(NegotiationError, match=r"the client does not say .*TIMEOUTbusy \(0.5 s\)"):
                await stage.follow(lines(1000), timeout=0.5)
            saying.cancel()
            assert 0.4 < asyncio.get_running_loop().time() - began < 3

    run(main())


def test_two_scripts_share_the_time(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            conversation = Conversation(stage, 0.6)
            loop = asyncio.get_running_loop()
            began = loop.time()
            loop.call_later(0.4, other.send, b"x\n")
            await conversation.follow(lines(1))
            with pytest.raises(NegotiationError, match=r"TIMEOUTbusy \(0.6 s\) exceeded"):
                await conversation.follow(lines(1))
            assert loop.time() - began < 0.95

    run(main())


def test_connecting_does_not_use_up_the_time(run: Run, log: Channel) -> None:
    def script() -> Script:
        reached = yield Connect()
        return reached, (yield Line(CLIENT))

    async def main() -> None:
        async with clear(log) as (stage, other):
            stage.delay = 0.5
            await streams.send(other, b"x\n")
            assert await stage.follow(script(), timeout=0.3) == ("there", b"x")

    run(main())


def test_a_peer_that_does_not_read_costs_the_time_it_has(run: Run, log: Channel) -> None:
    def script() -> Script:
        yield Send(CLIENT, b"x" * 30_000_000)

    async def main() -> None:
        async with clear(log) as (stage, _):
            with pytest.raises(NegotiationError, match="does not take what it is told: TIMEOUTbusy"):
                await stage.follow(script(), timeout=0.3)

    run(main())


# --- what came too early ---


@pytest.mark.parametrize("program", [False, True], ids=["socket", "program"])
def test_what_came_too_early_is_discarded_and_logged(
    run: Run, log: Channel, tmp_path: Path, program: bool
) -> None:
    def script() -> Script:
        yield Line(CLIENT)
        yield Discard(CLIENT)
        yield Send(CLIENT, b"go\r\n")
        return (yield Exactly(CLIENT, 3))

    async def main() -> None:
        async with clear(log, program=program) as (stage, other):
            await streams.send(other, b"STARTTLS\r\ninjected\r\n")

            async def go_on() -> None:
                assert await streams.receive(other, 4) == b"go\r\n"
                await streams.send(other, b"tls")

            taken, _ = await asyncio.gather(stage.follow(script()), go_on())
            assert taken == b"tls"

    run(main())
    assert (
        "LOG4[1]: 10 byte(s) that client:1 sent in clear, ahead of its turn" in (tmp_path / "log").read_text()
    )


def test_nothing_too_early_is_nothing_in_the_log(run: Run, log: Channel, tmp_path: Path) -> None:
    def script() -> Script:
        yield Discard(CLIENT)

    async def main() -> None:
        async with clear(log) as (stage, _):
            assert await stage.follow(script()) is None

    run(main())
    assert (tmp_path / "log").read_text() == ""


def test_a_flood_is_not_discarded_for_ever(run: Run, log: Channel) -> None:
    def script() -> Script:
        while True:
            yield Discard(CLIENT)

    async def main() -> None:
        async with clear(log) as (stage, other):
            peer = stage.peer
            assert isinstance(peer, ClearPeer)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * DISCARD_LIMIT)
            peer._stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * DISCARD_LIMIT)  # type: ignore[attr-defined]
            streams.fill(other)
            with pytest.raises(NegotiationError, match=f"sent more than {DISCARD_LIMIT} bytes"):
                await stage.follow(script())

    run(main())


# --- ends ---


def test_a_peer_that_leaves_is_told_of(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            await streams.send(other, b"half a line")
            other.shutdown(socket.SHUT_WR)
            with pytest.raises(NegotiationError, match=r"^the client closed the connection$"):
                await stage.follow(lines(1))

    run(main())


def test_a_peer_that_resets_is_told_of(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            waiting = asyncio.create_task(stage.follow(lines(1)))
            await asyncio.sleep(0.05)
            streams.reset(other)
            with pytest.raises(NegotiationError, match=r"^the client: Connection reset by peer \(104\)$"):
                await waiting

    run(main())


def test_what_a_peer_said_before_it_left_is_read(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            await streams.send(other, b"one\r\ntwo\r\n")
            other.close()
            assert await stage.follow(lines(2)) == [b"one", b"two"]

    run(main())


@VERSIONS
@pytest.mark.parametrize("how", ["close_notify", "FIN", "rubbish"])
def test_an_end_inside_tls_is_told_of(run: Run, log: Channel, cert: str, version: str, how: str) -> None:
    async def main() -> None:
        async with inside(log, cert, version) as (stage, other, _):
            reason = "closed the connection$"
            if how == "close_notify":
                await other.leave()
            elif how == "FIN":
                other.sock.shutdown(socket.SHUT_WR)
                reason = "closed the connection without close_notify"
            else:
                await streams.send(other.sock, b"HTTP/1.1 400 Bad Request\r\n")
                reason = "broke TLS: .*SSL routines"
            with pytest.raises(NegotiationError, match=f"^the client {reason}"):
                await stage.follow(lines(1))

    run(main())


# --- failures and scripts ---


def test_a_script_returns_what_it_found(run: Run, log: Channel, tmp_path: Path) -> None:
    def script() -> Script:
        assert (yield Note("noted")) is None
        assert (yield Send(CLIENT, b"")) is None
        return "found"

    async def main() -> None:
        async with clear(log) as (stage, _):
            assert await stage.follow(script()) == "found"

    run(main())
    assert "LOG6[1]: noted" in (tmp_path / "log").read_text()


def test_a_client_is_told_that_nobody_can_be_reached(run: Run, log: Channel) -> None:
    def script() -> Script:
        yield Connect(HostPort("elsewhere.example.com", 25))

    async def main() -> None:
        async with clear(log) as (stage, other):
            stage.reachable = False
            with pytest.raises(BackendError, match="No more addresses"):
                await stage.follow(telling(script(), b"421 later\r\n"))
            assert await streams.receive(other, 11) == b"421 later\r\n"
            assert stage.connects == [HostPort("elsewhere.example.com", 25)]

    run(main())


def test_a_client_out_of_time_is_still_told(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            with pytest.raises(NegotiationError, match="TIMEOUTbusy"):
                await stage.follow(telling(lines(1), b"421 too slow\r\n"), timeout=0.1)
            assert await streams.receive(other, 14) == b"421 too slow\r\n"

    run(main())


def test_an_error_that_cannot_be_told_is_the_first_one(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, other):
            streams.reset(other)
            with pytest.raises(NegotiationError, match=r"reset by peer|closed the connection"):
                await stage.follow(telling(lines(1), b"421 gone\r\n"))

    run(main())


def test_a_client_that_does_not_read_its_refusal_is_left_soon(run: Run, log: Channel) -> None:
    async def main() -> None:
        async with clear(log) as (stage, _):
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(NegotiationError, match="does not say what is expected"):
                await stage.follow(telling(lines(1), b"x" * 30_000_000), timeout=0.1)
            assert loop.time() - began < 8

    run(main())


@pytest.mark.parametrize("keeps", ["swallow", "go on"])
def test_a_failure_ends_the_connection_whatever_the_script_does(run: Run, log: Channel, keeps: str) -> None:
    def script() -> Script:
        try:
            yield Line(CLIENT)
        except NegotiationError:
            while keeps == "go on":
                yield Line(CLIENT)
        return "all is well"

    async def main() -> None:
        async with clear(log) as (stage, other):
            other.close()
            with pytest.raises(NegotiationError, match="closed the connection"):
                await stage.follow(script())

    run(main())


def test_a_conversation_can_be_cancelled(run: Run, log: Channel) -> None:
    closed = []

    def script() -> Script:
        try:
            yield Line(CLIENT)
        finally:
            closed.append(True)

    async def main() -> None:
        async with clear(log) as (stage, _):
            task = asyncio.create_task(stage.follow(script()))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())
    assert closed == [True]
