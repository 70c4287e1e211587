"""`culvert.connect` against real servers: openssl's, and peers that break the rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import culvert

from .certificates import Certificates
from .loops import NAMES, Run, runner
from .openssl import PAGE, Background, s_server, shown
from .peers import Listener, TlsPeer, background, pattern, read_all, server_context


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on either loop."""
    return runner(request.param)


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[Background]:
    """A web server of openssl's, with a good certificate."""
    with s_server(*shown(certificates.server), "-alpn", "http/1.1") as started:
        yield started


async def get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(PAGE)
    await writer.drain()
    page = await reader.read()
    writer.close()
    await writer.wait_closed()
    return page


def test_a_page_comes_from_a_server_that_is_verified(
    run: Run, server: Background, certificates: Certificates
) -> None:
    async def main() -> None:
        reader, writer = await culvert.connect(
            "localhost", server.port, cafile=str(certificates.ca.cert), alpn=["h2", "http/1.1"]
        )
        tls = writer.get_extra_info("tls")
        assert (tls.version, tls.protocol) == ("TLSv1.3", "http/1.1")
        assert writer.get_extra_info("peername")[:2] == ("127.0.0.1", server.port)
        assert (await get(reader, writer)).startswith(b"HTTP/1.0 200 ok")

    run(main)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"server_name": "elsewhere.example"}, "checkHost"),
        ({"cafile": "other"}, "certificate verify failed"),
        ({"options": {"allowCN": "nobody"}}, "nobody|allow"),
        (
            {"options": {"sslVersion": "TLSv1.2", "ciphers": "ECDHE-RSA-AES128-SHA"}},
            "handshake failure|alert",
        ),
    ],
    ids=["name", "ca", "rule", "cipher"],
)
def test_a_server_that_fails_is_an_error(
    run: Run, server: Background, certificates: Certificates, arguments: dict[str, object], reason: str
) -> None:
    other = arguments.get("cafile") == "other"
    cafile = str((certificates.other_ca if other else certificates.ca).cert)

    async def main() -> None:
        with pytest.raises(culvert.TlsError, match=reason):
            await culvert.connect("localhost", server.port, **{**arguments, "cafile": cafile})  # type: ignore[arg-type]

    run(main)


def test_a_certificate_is_shown_to_a_server_that_asks(run: Run, certificates: Certificates) -> None:
    asks: list[str | Path] = ["-Verify", "1", "-verify_return_error", "-CAfile", certificates.ca.cert]

    async def main() -> None:
        cafile = str(certificates.ca.cert)
        reader, writer = await culvert.connect(
            "localhost", port, cafile=cafile, cert=str(certificates.client.bundle)
        )
        assert b"client" in await get(reader, writer)
        with pytest.raises(culvert.TlsError, match="certificate required"):
            await get(*(await culvert.connect("localhost", port, cafile=cafile)))

    with s_server(*shown(certificates.server), *asks) as server:
        port = server.port
        run(main)


def test_nobody_there_is_a_connect_error(run: Run) -> None:
    async def main() -> None:
        with contextlib.closing(Listener()) as listener:
            port = listener.port
        with pytest.raises(culvert.ConnectError, match=rf"^127\.0\.0\.1:{port} refused the connection$"):
            await culvert.connect("127.0.0.1", port, verify=False)

    run(main)


def test_a_cancelled_connect_leaves_nothing_behind(run: Run) -> None:
    async def main() -> None:
        with contextlib.closing(Listener()) as silent:
            task = asyncio.ensure_future(culvert.connect("127.0.0.1", silent.port, verify=False))
            accepted = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            accepted.close()

    run(main)


def serve(
    listener: Listener, certificates: Certificates, talk: Callable[[TlsPeer], None]
) -> Callable[[], None]:
    """A TLS server for one connection."""

    def work() -> None:
        with listener.accept() as sock:
            peer = TlsPeer(sock, server_context(certificates.server), server=True)
            peer.handshake()
            talk(peer)

    return work


def test_both_directions_carry_much_and_end_apart(run: Run, certificates: Certificates) -> None:
    sent = pattern(3_000_000)

    def echo(peer: TlsPeer) -> None:
        data = read_all(peer)
        peer.send(data)
        peer.end()

    async def main() -> None:
        with contextlib.closing(Listener()) as listener:
            done = background(serve(listener, certificates, echo))
            reader, writer = await culvert.connect(
                "localhost", listener.port, cafile=str(certificates.ca.cert), limit=4096
            )
            for start in range(0, len(sent), 100_000):
                writer.write(sent[start : start + 100_000])
                await writer.drain()
            writer.write_eof()
            assert await reader.read() == sent
            writer.close()
            await writer.wait_closed()
            done.result(10)

    run(main)


def test_a_truncated_stream_is_no_end_in_good_order(run: Run, certificates: Certificates) -> None:
    def cut(peer: TlsPeer) -> None:
        peer.send(b"all of a line\nand a part")

    async def main() -> None:
        with contextlib.closing(Listener()) as listener:
            done = background(serve(listener, certificates, cut))
            reader, writer = await culvert.connect(
                "localhost", listener.port, cafile=str(certificates.ca.cert)
            )
            assert await reader.readline() == b"all of a line\n"
            with pytest.raises(culvert.TruncatedError) as raised:
                await reader.read()
            assert raised.value.partial == b"and a part"
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            done.result(10)

    run(main)


def test_starttls_is_spoken_first(run: Run, certificates: Certificates) -> None:
    def smtp(listener: Listener) -> None:
        with listener.accept() as sock:
            sock.sendall(b"220 mx.example ESMTP\r\n")
            assert sock.recv(1000).startswith(b"EHLO")
            sock.sendall(b"250-mx.example\r\n250 STARTTLS\r\n")
            assert sock.recv(1000) == b"STARTTLS\r\n"
            sock.sendall(b"220 go\r\n")
            peer = TlsPeer(sock, server_context(certificates.server), server=True)
            peer.handshake()
            assert peer.recv(1000).startswith(b"NOOP")
            peer.send(b"250 ok\r\n")
            peer.end()
            read_all(peer)

    async def main() -> None:
        with contextlib.closing(Listener()) as listener:
            done = background(smtp, listener)
            reader, writer = await culvert.connect(
                "localhost", listener.port, cafile=str(certificates.ca.cert), options={"protocol": "smtp"}
            )
            assert (await reader.readline()).startswith(b"220 ")
            writer.write(b"NOOP\r\n")
            assert await reader.readline() == b"250 ok\r\n"
            writer.close()
            await writer.wait_closed()
            done.result(10)

    run(main)


def test_a_locked_key_needs_its_pass_phrase(run: Run, certificates: Certificates) -> None:
    key = str(certificates.client.encrypted_key("secret"))

    async def main() -> None:
        with pytest.raises(culvert.ConfigurationError, match="pass phrase"):
            await culvert.connect("localhost", 1, verify=False, cert=str(certificates.client.cert), key=key)

    run(main)


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(culvert.ConfigurationError, match="gone"):
            await culvert.connect("localhost", 1, cafile=str(tmp_path / "gone.pem"))

    run(main)
