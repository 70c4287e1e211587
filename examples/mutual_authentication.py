"""A server that lets in whoever has a certificate of its CA for the name alice, and a change of that rule."""

import asyncio
import tempfile
from pathlib import Path

import certificates
import culvert


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"for alice only\n")
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def front(folder: Path, port: int, allowed: str) -> culvert.Configuration:
    return culvert.load_config(
        f"""
        [private]
        accept = 127.0.0.1:0
        connect = 127.0.0.1:{port}
        cert = {folder}/localhost.pem
        CAfile = {folder}/ca/ca.pem
        verifyChain = yes
        allowDNS = {allowed}
        """
    )


async def visit(port: int, folder: Path, cert: str | None) -> str:
    try:
        reader, writer = await culvert.connect(
            "localhost", port, cafile=f"{folder}/ca/ca.pem", cert=f"{folder}/{cert}" if cert else None
        )
        try:
            return (await reader.read()).decode().strip()
        finally:
            writer.close()
            await writer.wait_closed()
    except culvert.TlsError:  # in TLS 1.3 a client hears what its server thinks of it when it reads
        return "refused"


async def main(folder: Path) -> None:
    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    backend = plain.sockets[0].getsockname()[1]
    async with plain, culvert.Server(front(folder, backend, "alice"), drain_timeout=5) as server:
        port = server.port("private")
        print("alice:", await visit(port, folder, "alice.pem"))
        print("nobody:", await visit(port, folder, None))
        await server.reload(front(folder, backend, "bob"))
        print("alice, after the change:", await visit(port, folder, "alice.pem"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        certificates.make(Path(name))
        asyncio.run(main(Path(name)))
