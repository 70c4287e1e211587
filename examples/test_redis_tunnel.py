"""A pytest fixture that puts TLS in front of a server without it, for tests that block: run it by pytest."""

import asyncio
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import certificates
import culvert


class Redis(socketserver.StreamRequestHandler):
    """As much of redis as answers PING."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"+PONG\r\n" if line.strip() == b"PING" else b"-ERR unknown command\r\n")


@pytest.fixture
def redis() -> Iterator[int]:
    """The port of a server that speaks in clear."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redis) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield server.server_address[1]
        server.shutdown()


class Background:
    """An event loop in a thread of its own, for tests that are no coroutines."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def tls_redis(redis: int, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of the same server behind TLS, and the CA to trust."""
    certificates.make(tmp_path)
    tunnel = culvert.load_config(
        f"[redis]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{redis}\ncert = {tmp_path}/localhost.pem\n"
    )
    with contextlib.closing(Background()) as background:
        server = culvert.Server(tunnel, drain_timeout=2)
        background.run(server.start())
        try:
            yield server.port("redis"), tmp_path / "ca" / "ca.pem"
        finally:
            background.run(server.close())


def test_redis_answers_through_tls(tls_redis: tuple[int, Path]) -> None:
    port, ca = tls_redis
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("localhost", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"PING\r\n")
        assert client.recv(64) == b"+PONG\r\n"
