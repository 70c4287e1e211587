"""Where a client comes from: its connection says so, or the header of the proxy in front of it."""

from __future__ import annotations

import asyncio
import socket

from culvert.address import show
from culvert.conversation import ClearPeer
from culvert.errors import os_reason
from culvert.negotiate.proxy_header import HeaderReader, ProxyHeaderError
from culvert.negotiate.script import Ends
from culvert.presence import Presence
from culvert.readiness import Readiness
from culvert.refusals import RefusedError
from culvert.resolve import InternetAddress
from culvert.shared import Shared
from culvert.stream import Stream


async def arrive(
    shared: Shared, accepted: Stream, address: InternetAddress | None, presence: Presence
) -> Ends:
    """Between which addresses the client came: by its connection, or by what the proxy in front of it says.

    Exactly the header's bytes are taken from the stream. Raises RefusedError.
    """
    shared.access.check_connecting(address)
    here = accepted.getsockname() if address is not None and isinstance(accepted, socket.socket) else None
    ends = Ends(address, here)
    return (await _header(shared, accepted, presence) or ends) if shared.config.proxy.accept else ends


async def _header(shared: Shared, stream: Stream, presence: Presence) -> Ends | None:
    timeout = shared.config.timeout_busy
    try:
        if not isinstance(stream, socket.socket):
            raise ProxyHeaderError("cannot bring a PROXY header: it is no socket")
        async with asyncio.timeout(timeout):
            return await _Proxy(shared.readiness, stream, presence).header()
    except ProxyHeaderError as error:
        raise RefusedError("PROXY header", f"it {error}") from None
    except TimeoutError:
        reason = f"it sent no whole PROXY header: TIMEOUTbusy ({timeout:g} s) exceeded"
        raise RefusedError("PROXY header", reason) from None
    except OSError as error:
        raise RefusedError("PROXY header", f"{os_reason(error)} ({error.errno})") from None


class _Proxy(ClearPeer):
    """The proxy in front of a client."""

    def __init__(self, readiness: Readiness, sock: socket.socket, presence: Presence) -> None:
        super().__init__(readiness, sock)
        self._socket = sock
        self._client = presence

    async def header(self) -> Ends | None:
        reader, begun = HeaderReader(), False
        while not reader.complete:
            try:
                seen = self._socket.recv(reader.wanted, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._ready(reading=True)
                continue
            except OSError:
                self._note_end(begun)
                raise
            if not seen:
                self._note_end(begun)
                raise ProxyHeaderError("closed the connection before a PROXY header was there")
            begun = True
            self._socket.recv(reader.feed(seen))
        return reader.ends

    def _note_end(self, begun: bool) -> None:
        if not begun:
            self._client.leave()


def shown(shared: Shared, accepted: Stream | None, address: InternetAddress | None) -> str:
    """How the log calls a client, or what stands in its place."""
    if address is not None:
        return show(address)
    if accepted is None and shared.config.vpn is not None:
        return f"interface {shared.config.vpn.device}"
    if accepted is None:
        return f"program {shared.config.exec}"
    return "unix socket" if isinstance(accepted, socket.socket) else "standard input"
