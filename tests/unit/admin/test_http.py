"""The endpoint's HTTP as to its places: who is idle gives way, who asks does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

from culvert.admin.http import Bounds, HttpServer
from culvert.admin.request import Request, Response
from culvert.config.model import Debug
from culvert.log import Log

from ..loops import Run

PLACES = 2
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = b"yes"
BEGUN = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"


class Client:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes = REQUEST) -> int:
        """The status of the answer; 0 where the connection is over."""
        self.writer.write(request)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await self.reader.readexactly(length)
            return int(head.split()[1])
        return 0


Connect = Callable[[], Awaitable[Client]]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Connect]:
    """A server of `PLACES`, as what connects to it."""

    async def handle(_: Request) -> Response:
        return Response(HTTPStatus.OK, b"yes\n")

    server = HttpServer(handle, Log([]).channel(Debug(7, 3), "main"), Bounds(connections=PLACES))
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    port = listening.getsockname()[1]
    server.start([listening])
    made: list[Client] = []

    async def connect() -> Client:
        made.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return made[-1]

    try:
        yield connect
    finally:
        for one in made:
            one.writer.close()
        server.end()
        await server.finished()


def test_who_is_idle_for_longest_gives_way(run: Run) -> None:
    async def main() -> None:
        async with serving() as connect:
            first, second = await connect(), await connect()
            for one in (first, second, first):
                assert await one.ask() == 200
            assert await (await connect()).ask() == 200
            assert await first.ask() == 200
            assert await second.reader.read() == b""

    run(main())


def test_any_number_of_idle_clients_keeps_nobody_out(run: Run) -> None:
    async def main() -> None:
        async with serving() as connect:
            for _ in range(10 * PLACES):
                assert await (await connect()).ask() == 200

    run(main())


def test_who_is_in_the_middle_of_a_request_stays(run: Run) -> None:
    async def main() -> None:
        async with serving() as connect:
            first, second = await connect(), await connect()
            for one in (first, second):
                one.writer.write(BEGUN)
                assert await one.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
            assert await (await connect()).ask(b"") == 503
            for one in (first, second):
                assert await one.ask(BODY) == 200

    run(main())


def test_who_says_nothing_gives_way(run: Run) -> None:
    async def main() -> None:
        async with serving() as connect:
            first, _ = await connect(), await connect()
            assert await (await connect()).ask() == 200
            assert await first.reader.read() == b""

    run(main())
