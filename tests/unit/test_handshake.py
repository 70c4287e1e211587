"""The handshake over real sockets: its deadline, its ends, and what it leaves to the relay."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from culvert.handshake import INPUT_LIMIT, Handshake
from culvert.readiness import Readiness
from culvert.tls.context import TlsContext
from culvert.tls.engine import CHUNK, Engine, Scratch
from culvert.tls.failure import TlsError

from . import streams
from .loops import Run
from .tls.certificates import certify, common_name, write_identity
from .tls.ends import TLS12, TLS13, End, context

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("handshake")
    return f"cert = {write_identity(folder / 'server.pem', certify(common_name('server')))}"


@contextlib.asynccontextmanager
async def meeting(context: TlsContext) -> AsyncIterator[tuple[Handshake, Engine, socket.socket]]:
    """A handshake over one end of a connection, its engine, and the other end."""
    readiness = Readiness(asyncio.get_running_loop())
    ours, theirs = streams.tcp_pair()
    with streams.closing(ours, theirs):
        engine = context.engine(Scratch())
        yield Handshake(readiness, engine, ours), engine, theirs
        readiness.forget(ours.fileno())
    readiness.close()


async def shake(end: End, sock: socket.socket, size: int) -> None:
    """Be the peer: send flights in pieces of `size` bytes."""
    flight = end.step(b"")
    while True:
        for start in range(0, len(flight), size):
            await streams.send(sock, flight[start : start + size])
            await asyncio.sleep(0)
        if end.finished or end.failure is not None:
            return
        received = await asyncio.get_running_loop().sock_recv(sock, size)
        if not received:
            return
        flight = end.step(received)


@VERSIONS
@pytest.mark.parametrize("size", [3, 100, CHUNK])
@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
def test_it_finishes_whatever_the_flights_are_cut_into(
    run: Run, cert: str, version: str, size: int, client: bool
) -> None:
    async def main() -> None:
        ours, peers = context(version, client=True), context(version, cert)
        if not client:
            ours, peers = peers, ours
        async with meeting(ours) as (handshake, engine, sock):
            peer = End(peers)
            await asyncio.gather(handshake.run(15), shake(peer, sock, size))
            assert peer.finished
            assert engine.version == version.rpartition(" ")[2]

    run(main())


def test_a_peer_that_stalls_costs_the_time_it_has(run: Run, cert: str) -> None:
    async def main() -> None:
        async with meeting(context(cert)) as (handshake, _, sock):
            await streams.send(sock, b"\x16\x03\x01")
            with pytest.raises(TimeoutError):
                await handshake.run(0.2)

    run(main())


def test_a_peer_that_leaves_has_openssls_words(run: Run, cert: str) -> None:
    async def main() -> None:
        async with meeting(context(cert)) as (handshake, _, sock):
            sock.close()
            with pytest.raises(TlsError, match="unexpected eof while reading"):
                await handshake.run(15)

    run(main())


def test_a_peer_that_resets_is_an_error_of_the_system(run: Run, cert: str) -> None:
    async def main() -> None:
        async with meeting(context(cert)) as (handshake, _, sock):
            streams.reset(sock)
            with pytest.raises(ConnectionResetError):
                await handshake.run(15)

    run(main())


def test_a_peer_that_sends_a_broken_hello_is_told(run: Run, cert: str) -> None:
    async def main() -> None:
        async with meeting(context(cert)) as (handshake, _, sock):
            await streams.send(sock, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
            with pytest.raises(TlsError, match="SSL routines"):
                await handshake.run(15)
            assert (await streams.receive(sock, 7)).startswith(b"\x15\x03")

    run(main())


def test_a_peer_cannot_send_for_ever(run: Run, cert: str) -> None:
    """Records that are well-formed and lead nowhere: fragments of a message that never ends."""

    async def main() -> None:
        async with meeting(context(cert)) as (handshake, _, sock):
            record = b"\x16\x03\x03\x40\x00" + b"\x01\x01\x00\x00" + bytes(0x4000 - 4)
            sending = asyncio.create_task(streams.send(sock, record * (2 * INPUT_LIMIT // len(record))))
            with pytest.raises(TlsError):
                await handshake.run(15)
            sending.cancel()
            await asyncio.wait([sending])

    run(main())


@VERSIONS
def test_data_behind_the_last_flight_is_left_to_the_relay(run: Run, cert: str, version: str) -> None:
    async def main() -> None:
        async with meeting(context(version, cert)) as (handshake, engine, sock):
            peer = End(context(version, client=True))
            shaking = asyncio.create_task(handshake.run(15))
            await shake(peer, sock, CHUNK)
            await streams.send(sock, peer.encrypt(b"x" * 1000))
            await shaking
            received = bytes(engine.scratch.transformed[: engine.drain()])
            assert received in (b"", b"x" * 1000)

    run(main())


def test_it_reads_no_more_once_it_is_done_but_for_what_it_has_to_send(run: Run, tmp_path: Path) -> None:
    """A server may send data before it has the client's last flight (RFC 8446, 2): here that flight, a
    long certificate chain, does not fit into the socket, and the data must stay where it is meanwhile."""

    async def main() -> None:
        root = certify(common_name("root"))
        chain = [root]
        for number in range(200):
            chain.append(certify(common_name(f"{number:060}"), issuer=chain[-1]))
        shown = write_identity(tmp_path / "client.pem", *reversed(chain))
        trust = write_identity(tmp_path / "server.pem", root)
        client = context(TLS13, f"cert = {shown}", client=True)
        server = End(context(TLS13, f"cert = {trust}", f"CAfile = {trust}", "verify = 0"))
        readiness = Readiness(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        with streams.closing(ours, theirs):
            ours.setblocking(False)
            theirs.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
            engine = client.engine(Scratch())
            shaking = asyncio.create_task(Handshake(readiness, engine, ours).run(15))
            flight = server.step(await asyncio.get_running_loop().sock_recv(theirs, CHUNK))
            await streams.send(theirs, flight)
            await asyncio.sleep(0.1)
            await streams.send(theirs, b"data before the handshake's end")
            await asyncio.sleep(0.1)
            assert not shaking.done()
            assert ours.recv(1000, socket.MSG_PEEK) == b"data before the handshake's end"
            while not server.finished and server.failure is None:
                server.step(await asyncio.get_running_loop().sock_recv(theirs, CHUNK))
            assert server.failure is None
            await shaking
            readiness.forget(ours.fileno())
        readiness.close()

    run(main())


def test_who_gives_up_meanwhile_hears_nothing_more(run: Run, cert: str) -> None:
    async def main() -> None:
        async with meeting(context(cert)) as (handshake, _, sock):
            task = asyncio.create_task(handshake.run(15))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await streams.send(sock, b"GET / HTTP/1.0\r\n\r\n")
            await asyncio.sleep(0.05)

    run(main())


@pytest.mark.parametrize("end", ["garbage", "close", "reset", "silence"])
def test_a_failed_handshake_is_freed_without_the_collector(run: Run, cert: str, end: str) -> None:
    """Of the memory that hangs on an engine the collector knows nothing: it would come too late."""
    server = context(cert)

    async def fails() -> weakref.ref[Engine]:
        async with meeting(server) as (handshake, engine, sock):
            match end:
                case "garbage":
                    await streams.send(sock, b"GET / HTTP/1.0\r\n\r\n")
                case "close":
                    sock.close()
                case "reset":
                    streams.reset(sock)
            with contextlib.suppress(TlsError, OSError):
                await handshake.run(0.2)
            return weakref.ref(engine)

    async def main() -> None:
        gc.collect()
        gc.disable()
        try:
            reference = await asyncio.create_task(fails())
            await asyncio.sleep(0)
            assert reference() is None
        finally:
            gc.enable()

    run(main())
