"""`culvert.Server` in a program's own loop, with openssl's client and culvert's at its ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import culvert

from .certificates import Certificates
from .loops import NAMES, Run, runner
from .openssl import s_client


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on either loop."""
    return runner(request.param)


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of a server that says what it hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def front(
    certificates: Certificates, target: int, more: str = "", accept: object = 0, header: str = ""
) -> culvert.Configuration:
    """One service in front of a target."""
    return culvert.load_config(
        f"{header}[front]\naccept = 127.0.0.1:{accept}\nconnect = 127.0.0.1:{target}\n"
        f"cert = {certificates.server.bundle}\n{more}\n"
    )


async def visit(server: culvert.Server, certificates: Certificates) -> None:
    """One connection, from the handshake to both ends."""
    reader, writer = await culvert.connect(
        "localhost", server.port("front"), cafile=str(certificates.ca.cert)
    )
    writer.write(b"hello")
    writer.write_eof()
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()


def test_openssl_is_served(run: Run, certificates: Certificates) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        plain = await asyncio.start_server(greet, "127.0.0.1", 0)
        target = plain.sockets[0].getsockname()[1]
        async with plain, culvert.Server(front(certificates, target)) as server:
            trust = ("-CAfile", certificates.ca.cert, "-verify_return_error")
            client = await asyncio.to_thread(s_client, server.port("front"), *trust)
            assert (client.status, client.received) == (0, "hello\n"), client.said
        assert server.stats["front"].handshakes == 1

    run(main)


def test_the_end_waits_for_a_connection(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with echo() as target:
            server = culvert.Server(front(certificates, target), drain_timeout=10)
            await server.start()
            port = server.port("front")
            reader, writer = await culvert.connect("localhost", port, cafile=str(certificates.ca.cert))
            closing = asyncio.ensure_future(server.close())
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"late")
            assert await reader.readexactly(4) == b"late"
            assert not closing.done()
            writer.close()
            await writer.wait_closed()
            await closing
            assert (server.stats["front"].open, server.connections) == (0, ())

    run(main)


def test_the_deadline_ends_a_connection_that_stays(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with echo() as target, culvert.Server(front(certificates, target), drain_timeout=0.1) as server:
            reader, writer = await culvert.connect(
                "localhost", server.port("front"), cafile=str(certificates.ca.cert)
            )
            await server.close()
            with contextlib.suppress(culvert.TruncatedError, OSError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    run(main)


async def closing_time(server: culvert.Server, certificates: Certificates) -> float:
    """How long a server takes to close that has a connection which stays."""
    _, writer = await culvert.connect("localhost", server.port("front"), cafile=str(certificates.ca.cert))
    began = asyncio.get_running_loop().time()
    await server.close()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return asyncio.get_running_loop().time() - began


def test_the_configuration_says_how_long_the_end_waits(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with echo() as target:
            server = culvert.Server(front(certificates, target))
            await server.start()
            await server.reload(front(certificates, target, header="drainTimeout = 0.2\n"))
            assert 0.2 <= await closing_time(server, certificates) < 10

    run(main)


def test_the_argument_counts_before_the_configuration(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with echo() as target:
            patient = front(certificates, target, header="drainTimeout = 3600\n")
            server = culvert.Server(patient, drain_timeout=0.2)
            await server.start()
            assert 0.2 <= await closing_time(server, certificates) < 10

    run(main)


def test_a_reload_keeps_the_port_and_the_connection(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with echo() as target, culvert.Server(front(certificates, target), drain_timeout=5) as server:
            port = server.port("front")
            reader, writer = await culvert.connect("localhost", port, cafile=str(certificates.ca.cert))
            await server.reload(front(certificates, target, "TIMEOUTidle = 77"))
            assert server.port("front") == port
            await visit(server, certificates)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            assert {one.service for one in server.connections} == {"front"}
            writer.close()
            await writer.wait_closed()
        assert server.stats["front"].accepted == 2

    run(main)


def test_a_reload_that_fails_changes_nothing(run: Run, certificates: Certificates, tmp_path: Path) -> None:
    async def main() -> None:
        async with echo() as target, culvert.Server(front(certificates, target), drain_timeout=5) as server:
            bad = front(certificates, target, f"CAfile = {tmp_path}/gone.pem\nverifyChain = yes")
            with pytest.raises(culvert.ConfigurationError, match="gone"):
                await server.reload(bad)
            await visit(server, certificates)

    run(main)


def test_a_reload_that_fails_leaves_the_time_for_the_end_as_it_was(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def main() -> None:
        async with echo() as target:
            server = culvert.Server(front(certificates, target))
            await server.start()
            reader, writer = await culvert.connect(
                "localhost", server.port("front"), cafile=str(certificates.ca.cert)
            )
            bad = front(certificates, target, f"CAfile = {tmp_path}/gone.pem", header="drainTimeout = 0\n")
            with pytest.raises(culvert.ConfigurationError, match="gone"):
                await server.reload(bad)
            closing = asyncio.create_task(server.close())
            while server.addresses:
                await asyncio.sleep(0.01)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
            await closing

    run(main)


def test_two_servers_share_a_loop(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with (
            echo() as target,
            culvert.Server(front(certificates, target)) as inner,
            culvert.Server(
                culvert.load_config(
                    f"[client]\nclient = yes\naccept = 127.0.0.1:0\n"
                    f"connect = localhost:{inner.port('front')}\n"
                    f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
                )
            ) as outer,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", outer.port("client"))
            writer.write(b"through both")
            writer.write_eof()
            assert await reader.read() == b"through both"
            writer.close()
            await writer.wait_closed()

    run(main)


def test_a_cancelled_start_leaves_nothing_open(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        server = culvert.Server(front(certificates, 9))
        task = asyncio.ensure_future(server.start())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.close()

    run(main)


def test_a_port_that_is_taken_is_an_error(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with culvert.Server(front(certificates, 9)) as first:
            taken = front(certificates, 9, accept=first.port("front"))
            with pytest.raises(culvert.ConfigurationError, match="in use"):
                async with culvert.Server(taken):
                    pass

    run(main)


def test_lines_go_to_the_logger_and_signals_stay_as_they_are(
    run: Run, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        caplog.set_level(logging.INFO, "tunnels")
        async with (
            echo() as target,
            culvert.Server(front(certificates, target), logger=logging.getLogger("tunnels")) as server,
        ):
            await visit(server, certificates)
            assert [signal.getsignal(number) for number in signal.valid_signals()] == before

    run(main)
    assert {record.name for record in caplog.records} == {"tunnels"}
    assert any("Service [front] accepted connection from 127.0.0.1" in one.message for one in caplog.records)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("chroot = /\n[a]\naccept = 127.0.0.1:0\nconnect = 9\nclient = yes\n", '"chroot" would change'),
        ("setuid = nobody\n[a]\naccept = 127.0.0.1:0\nconnect = 9\nclient = yes\n", '"setuid" would change'),
        ("client = yes\nconnect = 9\n", r"no \[service\] section"),
    ],
)
def test_what_needs_a_daemon_is_refused(text: str, reason: str) -> None:
    with pytest.raises(culvert.ConfigurationError, match=reason):
        culvert.Server(culvert.load_config(text))


def test_what_is_of_no_use_is_warned_of(
    run: Run, certificates: Certificates, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        text = (
            f"output = {log}\nworkers = 3\n[a]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\nclient = yes\n"
        )
        async with culvert.Server(culvert.load_config(text)):
            pass

    run(main)
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert any('"output" has no effect inside a program' in one for one in warnings)
    assert any('"workers" has no effect inside a program' in one for one in warnings)
    assert not log.exists()


def test_a_cancelled_end_ends_at_once(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with echo() as target:
            server = culvert.Server(front(certificates, target), drain_timeout=60)
            await server.start()
            reader, writer = await culvert.connect(
                "localhost", server.port("front"), cafile=str(certificates.ca.cert)
            )
            closing = asyncio.ensure_future(server.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            with contextlib.suppress(culvert.TruncatedError, OSError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            assert server.connections == ()

    run(main)


def test_a_server_is_started_once(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with culvert.Server(front(certificates, 9)) as server:
            with pytest.raises(RuntimeError, match="started once"):
                await server.start()
        with pytest.raises(RuntimeError, match="between its start and its end"):
            await server.reload(front(certificates, 9))

    run(main)
