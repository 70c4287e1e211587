"""What carries a connection of the load's clients: TLS of this program's own, a stunnel client, s_client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Protocol

from .frames import CorruptError, TruncatedError


class Wire(Protocol):
    """What carries a connection of a client."""

    async def send(self, data: bytes) -> None: ...
    async def recv(self) -> bytes:
        """Some bytes; none at an end in good order. Raises TruncatedError and OSError."""

    async def end(self) -> None:
        """Say that nothing more comes, and wait until the other side has said so, too."""

    def close(self) -> None: ...


class PlainWire:
    """TCP without TLS, to a stunnel client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def recv(self) -> bytes:
        return await self.loop.sock_recv(self.sock, 65536)

    async def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)
        if await self.recv():
            raise CorruptError("bytes behind the end")

    def close(self) -> None:
        self.sock.close()


class TlsWire(PlainWire):
    """TLS of this program's own."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
        super().__init__(sock)
        self._received, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._turn = asyncio.Lock()
        self.tls = context.wrap_bio(self._received, self._out, server_hostname="localhost", session=session)

    async def handshake(self) -> None:
        await self._until(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self._flush()

    async def recv(self) -> bytes:
        data: bytes = await self._until(lambda: self.tls.read(65536))
        return data

    async def end(self) -> None:
        await self._until(self.tls.unwrap)

    async def _until(self, step: Any) -> Any:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await super().recv():
                    self._received.write(data)
                else:
                    self._received.write_eof()
            except ssl.SSLEOFError:
                raise TruncatedError("no close_notify") from None
            else:
                await self._flush()
                return done

    async def _flush(self) -> None:
        async with self._turn:
            while data := self._out.read():
                await super().send(data)


class ProgramWire:
    """What `openssl s_client` makes of its standard input and output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout

    async def send(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def recv(self) -> bytes:
        if data := await self._stdout.read(65536):
            return data
        if status := await self._process.wait():
            raise TruncatedError(f"s_client ended with status {status}")
        return b""

    async def end(self) -> None:
        self._stdin.close()
        if await self.recv():
            raise CorruptError("bytes behind the end")

    def close(self) -> None:
        self._stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
