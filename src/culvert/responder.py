"""Asks OCSP responders over HTTP (RFC 6960, appendix A), each question on a connection of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from culvert.address import HttpUrl
from culvert.errors import os_reason
from culvert.http_response import HttpError, ResponseReader
from culvert.resolve import InternetAddress, resolve
from culvert.tls.ocsp import ANSWER_LIMIT, URL_LIMIT, Doubt, OcspError

_ADDRESS_LIMIT = 4
"""Most addresses of one responder that are tried."""

_LOOK_UP_LIMIT = 4
"""Most names looked up at the same time. A look-up takes a thread that cannot be cancelled, and those who
connect to targets need threads too."""

_Addresses = list[tuple[int, InternetAddress]]


class ResponderClient:
    """Sends requests to responders; one for a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._looking_up: dict[tuple[str, int], asyncio.Future[_Addresses]] = {}

    async def ask(self, url: HttpUrl, request: bytes, timeout: float) -> bytes:
        """The responder's answer, not looked into, within `timeout` seconds. Raises OcspError."""
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(url, request)
        except TimeoutError:
            reason = f"TIMEOUTocsp ({timeout:.1f} s for this one) exceeded"
        except OSError as error:
            reason = os_reason(error)
        except HttpError as error:
            reason = str(error)
        raise OcspError(Doubt.NO_ANSWER, f"{url}: {reason}")

    async def _exchange(self, url: HttpUrl, request: bytes) -> bytes:
        sock = await self._connect(url)
        try:
            await self._loop.sock_sendall(sock, _head(url, len(request)) + request)
            reader = ResponseReader(ANSWER_LIMIT)
            while data := await self._loop.sock_recv(sock, 16384):
                if reader.feed(data):
                    return reader.body
            reader.end()
            return reader.body
        finally:
            sock.close()

    async def _connect(self, url: HttpUrl) -> socket.socket:
        failure = OSError("the name has no address")
        for family, sockaddr in (await self._look_up(url))[:_ADDRESS_LIMIT]:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await self._loop.sock_connect(sock, sockaddr)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure

    async def _look_up(self, url: HttpUrl) -> _Addresses:
        key = (url.host, url.port)
        look_up = self._looking_up.get(key)
        if look_up is None:
            if len(self._looking_up) >= _LOOK_UP_LIMIT:
                raise OSError("too many names are being looked up")
            look_up = self._loop.run_in_executor(None, resolve, *key)
            self._looking_up[key] = look_up
            look_up.add_done_callback(lambda done: self._looked_up(key, done))
        return await asyncio.shield(look_up)

    def _looked_up(self, key: tuple[str, int], done: asyncio.Future[_Addresses]) -> None:
        del self._looking_up[key]
        if not done.cancelled():
            done.exception()  # whoever asked may be gone


def usable(candidates: Iterable[HttpUrl | str]) -> tuple[list[HttpUrl], list[str]]:
    """Those responders that can be asked, each once, and why the others cannot."""
    urls: dict[HttpUrl, None] = {}
    refusals = []
    for candidate in candidates:
        try:
            urls[candidate if isinstance(candidate, HttpUrl) else HttpUrl.parse(candidate)] = None
        except ValueError as error:
            refusals.append(f"{str(candidate)[:200]!r}: {error}")
    return list(urls)[:URL_LIMIT], refusals


def _head(url: HttpUrl, length: int) -> bytes:
    return (
        f"POST {url.target} HTTP/1.1\r\n"
        f"Host: {url.authority}\r\n"
        "Content-Type: application/ocsp-request\r\n"
        "Accept: application/ocsp-response\r\n"
        f"Content-Length: {length}\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")
