"""TLS in front of an asyncio server that knows nothing of it, and a client of it."""

import asyncio
import tempfile
from pathlib import Path

import certificates
import culvert


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the program serves, in clear."""
    name = await reader.readline()
    writer.write(b"hello " + name)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def main(folder: Path) -> None:
    plain = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    front = culvert.load_config(
        f"""
        [front]
        accept = 127.0.0.1:0
        connect = 127.0.0.1:{port}
        cert = {folder}/localhost.pem
        """
    )
    async with plain, culvert.Server(front, drain_timeout=5) as server:
        port = server.port("front")
        reader, writer = await culvert.connect("localhost", port, cafile=f"{folder}/ca/ca.pem")
        writer.write(b"world\n")
        print((await reader.read()).decode().strip(), "over", writer.get_extra_info("tls").version)
        writer.close()
        await writer.wait_closed()
    print(f"{server.stats['front'].accepted} connection")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        certificates.make(Path(name))
        asyncio.run(main(Path(name)))
