"""The end of a connection that is told to end."""

from __future__ import annotations

import asyncio
import ssl

from culvert.worker import Worker

from .generations import Loader, free_port, service
from .loops import Run


def test_however_often_it_is_told_to_end_its_peers_are_told_once(run: Run, loader: Loader) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        port = free_port()
        async with await asyncio.start_server(hold, "127.0.0.1", 0) as target:
            connect = f"connect = 127.0.0.1:{target.sockets[0].getsockname()[1]}\n"
            generation = loader.build("debug = 5\n" + service(f"127.0.0.1:{port}", connect=connect))
            worker = Worker(generation.assignment(0))
            worker.start()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            (connection,) = worker.services[0].connections.values()
            while not connection.carrying:
                await asyncio.sleep(0.01)
            for why in ("first", "second", "third"):
                assert connection.wind_up(why)
                assert connection.parting
            assert await reader.read() == b""
            writer.close()
            await worker.drain()
            await worker.end()

    run(main())
    assert "Connection ended first" in loader.log()
    assert loader.log().count("Connection ended") == 1
