"""Connecting to targets that clients ask for: resolved for each request, judged, and then tried in turn.

What is connected to is the address that was judged: a name is not looked up twice, for its owner may answer
differently the second time.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from culvert.address import HostPort, show
from culvert.config.model import Service
from culvert.connect import Connector, Endpoint
from culvert.errors import BackendError, Unreached, os_reason
from culvert.log import Channel
from culvert.negotiate.socks_targets import SocksTargets
from culvert.own_addresses import is_own
from culvert.resolve import resolve

LOOK_UPS = 64
"""Most names that are looked up, or wait for it, at once: a look-up cannot be cancelled, and those whose
clients are gone would otherwise pile up."""

LOOK_UP_THREADS = 4
"""Threads of one service for this: slow names that clients ask for must not keep other services waiting."""

ADDRESSES = 8
"""Most addresses of one name that are looked at: a stranger's name may have any number."""

_CAUSES = {
    errno.ECONNREFUSED: Unreached.REFUSED,
    errno.ETIMEDOUT: Unreached.TIMED_OUT,
    errno.ENETUNREACH: Unreached.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Unreached.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Unreached.HOST_UNREACHABLE,
}


class RequestedTargets:
    """The way to wherever the clients of one service want to go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, service: Service, connector: Connector) -> None:
        self._loop = loop
        self._timeout = service.timeout_connect
        self._connector = connector
        self._permitted = SocksTargets(service.socks_allow)
        self._looking_up: dict[HostPort, asyncio.Future[list[Endpoint]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def connect(self, target: HostPort, log: Channel) -> tuple[socket.socket, Endpoint]:
        """A connected non-blocking socket and where it leads, within TIMEOUTconnect.

        Raises BackendError with its cause.
        """
        try:
            async with asyncio.timeout(self._timeout) as limit:
                endpoints = self._judge(target, await self._look_up(target))
                return await self._try(endpoints, limit.when() or 0.0, log)
        except TimeoutError:
            reason = f"{target}: TIMEOUTconnect ({self._timeout:g} s) exceeded"
            raise BackendError(reason, Unreached.TIMED_OUT) from None

    def _judge(self, target: HostPort, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Those that may be reached. Raises BackendError if there is none."""
        host, port = target.host or "", int(target.port)
        admitted, refusals = [], []
        for endpoint in endpoints:
            address = str(endpoint.sockaddr[0])
            refusal = self._permitted.refusal(host, address, port, own=is_own(tuple(endpoint.sockaddr)))
            if refusal is None:
                admitted.append(endpoint)
            else:
                refusals.append(refusal)
        if not admitted:
            raise BackendError(next(iter(refusals), f"{target}: no address"), Unreached.FORBIDDEN)
        return admitted

    async def _try(
        self, endpoints: list[Endpoint], deadline: float, log: Channel
    ) -> tuple[socket.socket, Endpoint]:
        failure = BackendError("No address to connect")
        for left, endpoint in _countdown(endpoints):
            shown = show(endpoint.sockaddr)
            log.info(f"s_connect: connecting {shown}")
            now = self._loop.time()
            try:
                async with asyncio.timeout_at(now + (deadline - now) / left):
                    return await self._connector.reach(endpoint), endpoint
            except TimeoutError:
                failure = BackendError(f"s_connect: {shown}: TIMEOUTconnect exceeded", Unreached.TIMED_OUT)
            except OSError as error:
                cause = _CAUSES.get(error.errno or 0, Unreached.OTHER)
                reason = f"s_connect: connect {shown}: {os_reason(error)} ({error.errno})"
                failure = BackendError(reason, cause)
            if left > 1:
                log.info(str(failure))
        raise failure

    async def _look_up(self, target: HostPort) -> list[Endpoint]:
        if _is_address(target.host or ""):
            try:
                return _resolve(target)
            except OSError as error:
                reason = f"{target}: {os_reason(error)}"
                raise BackendError(reason, Unreached.NETWORK_UNREACHABLE) from None
        if not self._permitted.worth_resolving(target.host or "", int(target.port)):
            reason = (
                f"SOCKS connection to {target.host} port {target.port} rejected: no socksAllow permits it"
            )
            raise BackendError(reason, Unreached.FORBIDDEN)
        look_up = self._looking_up.get(target)
        if look_up is None:
            if len(self._looking_up) >= LOOK_UPS:
                raise BackendError(f"{target}: {LOOK_UPS} names are being looked up already")
            if self._threads is None:
                self._threads = ThreadPoolExecutor(LOOK_UP_THREADS, "socks-names")
            look_up = self._loop.run_in_executor(self._threads, _resolve, target)
            self._looking_up[target] = look_up
            look_up.add_done_callback(lambda done: self._looked_up(target, done))
        try:
            return await asyncio.shield(look_up)
        except OSError as error:
            reason = f"Error resolving {target}: {os_reason(error)}"
            raise BackendError(reason, Unreached.UNKNOWN_NAME) from None

    def _looked_up(self, target: HostPort, done: asyncio.Future[list[Endpoint]]) -> None:
        del self._looking_up[target]
        if not done.cancelled():
            done.exception()  # nobody may be left who waits for it


def _countdown(endpoints: list[Endpoint]) -> Iterator[tuple[int, Endpoint]]:
    """Each with how many are left, itself included: each gets its share of the time."""
    return zip(range(len(endpoints), 0, -1), endpoints, strict=True)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve(target: HostPort) -> list[Endpoint]:
    found = resolve(target.host or "", target.port)
    return [Endpoint(target, family, sockaddr) for family, sockaddr in found[:ADDRESSES]]
