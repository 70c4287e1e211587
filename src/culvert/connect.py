"""Connecting to a service's targets: resolving, failover, source address, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from culvert import sockopt
from culvert.address import Address, HostPort, UnixPath, show
from culvert.config.model import Failover, Service
from culvert.errors import BackendError, ConfigurationError, ConnectError, Unreached, os_reason
from culvert.log import Channel
from culvert.resolve import SocketAddress, resolve

LOCALHOST = "localhost"

Permit = Callable[[SocketAddress], None]
"""Raises BackendError for an address that must not be connected to."""

_CAUSES = {
    errno.ECONNREFUSED: Unreached.REFUSED,
    errno.ETIMEDOUT: Unreached.TIMED_OUT,
    errno.ENETUNREACH: Unreached.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Unreached.HOST_UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that can be connected to, and the target of the configuration that it came from."""

    target: Address
    family: int
    sockaddr: SocketAddress

    @property
    def server_name(self) -> str | None:
        """The host name to ask a TLS server for; None for addresses, which RFC 6066, 3 does not allow."""
        if not isinstance(self.target, HostPort):
            return None
        host = self.target.host or LOCALHOST
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            return None
        return host


@dataclass(frozen=True, slots=True)
class Targets:
    """What a service connects to (`addresses`), as far as it was resolved before the jail closed.

    `endpoints` has, for each address in its order, the addresses found; None for one that is to be
    resolved at each connection. `sources` has the addresses of `local`.
    """

    addresses: tuple[Address, ...]
    endpoints: tuple[tuple[Endpoint, ...] | None, ...]
    sources: tuple[tuple[int, SocketAddress], ...]


def prepare(service: Service, addresses: tuple[Address, ...], log: Channel) -> Targets:
    """Resolve what can be resolved at start; a name that has no answer yet is tried at each connection."""
    endpoints: list[tuple[Endpoint, ...] | None] = []
    for target in addresses:
        try:
            found = None if service.delay and isinstance(target, HostPort) else _resolve(target)
        except OSError as error:
            log.error(f"Service [{service.name}]: cannot resolve {target}: {os_reason(error)}")
            log.notice(f"Service [{service.name}]: {target} will be resolved at each connection")
            found = None
        endpoints.append(found)
    return Targets(addresses, tuple(endpoints), _sources(service))


def _sources(service: Service) -> tuple[tuple[int, SocketAddress], ...]:
    if service.local is None:
        return ()
    try:
        return tuple(resolve(service.local, 0))
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot resolve the source address {service.local}: {os_reason(error)}",
            service.where("local"),
            service.name,
        ) from None


def _resolve(target: Address) -> tuple[Endpoint, ...]:
    if isinstance(target, UnixPath):
        return (Endpoint(target, socket.AF_UNIX, target.path),)
    found = resolve(target.host or LOCALHOST, target.port)
    return tuple(Endpoint(target, family, sockaddr) for family, sockaddr in found)


class Connector:
    """Opens connections to a service's targets, in the order that `failover` asks for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, service: Service, targets: Targets) -> None:
        self._loop = loop
        self._service = service
        self._targets = targets
        self._settings: dict[int, tuple[sockopt.Setting, ...]] = {
            family: sockopt.settings(service.socket_options, "r", family)
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        }
        self._in_rotation = service.failover is Failover.RR
        self._turn = 0
        # One look-up for all who wait: a thread cannot be cancelled, and there are few.
        self._looking_up: dict[Address, asyncio.Future[tuple[Endpoint, ...]]] = {}

    async def connect(self, log: Channel) -> tuple[socket.socket, Endpoint]:
        """A connected non-blocking socket and where it leads. Raises BackendError when no target answers."""
        attempts = 0
        for resolved, target in await self._in_turn(log) if self._in_rotation else self._in_order():
            for endpoint in resolved if resolved is not None else await self._look_up(target, log):
                attempts += 1
                sock = await self._attempt(endpoint, log)
                if sock is not None:
                    return sock, endpoint
        raise BackendError("No more addresses to connect" if attempts else "No address to connect")

    async def connect_to(
        self, target: HostPort, permit: Permit, log: Channel
    ) -> tuple[socket.socket, Endpoint]:
        """Connect to a target that somebody asked for; its name is looked up now.

        `permit` is asked about each address that the name has, before it is connected to; those that it
        raises BackendError for are passed over. TIMEOUTconnect is for the whole. Raises ConnectError.
        """
        try:
            async with asyncio.timeout(self._service.timeout_connect):
                return await self._try(_permitted(await self._look_up_now(target), permit), log)
        except TimeoutError:
            raise ConnectError(f"{target}: TIMEOUTconnect exceeded", Unreached.TIMED_OUT) from None

    async def _look_up_now(self, target: HostPort) -> tuple[Endpoint, ...]:
        try:
            return await asyncio.shield(self._loop.run_in_executor(None, _resolve, target))
        except OSError as error:
            reason = f"Error resolving {target}: {os_reason(error)}"
            raise ConnectError(reason, Unreached.UNRESOLVED) from None

    async def _try(self, endpoints: list[Endpoint], log: Channel) -> tuple[socket.socket, Endpoint]:
        failure = ConnectError("No address to connect", Unreached.UNRESOLVED)
        for endpoint in endpoints:
            shown = show(endpoint.sockaddr)
            log.info(f"s_connect: connecting {shown}")
            sock = self._open(endpoint)
            try:
                await self._complete(sock, endpoint.sockaddr)
            except OSError as error:
                sock.close()
                cause = _CAUSES.get(error.errno or 0, Unreached.FAILED)
                failure = ConnectError(
                    f"s_connect: connect {shown}: {os_reason(error)} ({error.errno})", cause
                )
            except BaseException:
                sock.close()
                raise
            else:
                return sock, endpoint
        raise failure

    def _in_order(self) -> Iterable[tuple[tuple[Endpoint, ...] | None, Address]]:
        """As written; what has no addresses yet is looked up when it is its turn."""
        return zip(self._targets.endpoints, self._targets.addresses, strict=True)

    async def _in_turn(self, log: Channel) -> Iterable[tuple[tuple[Endpoint, ...] | None, Address]]:
        """Each connection begins one address further on, the addresses of one name included."""
        known: list[tuple[tuple[Endpoint, ...] | None, Address]] = [
            ((endpoint,), target)
            for resolved, target in self._in_order()
            for endpoint in (resolved if resolved is not None else await self._look_up(target, log))
        ]
        start = self._turn % max(len(known), 1)
        self._turn += 1
        return known[start:] + known[:start]

    async def _look_up(self, target: Address, log: Channel) -> tuple[Endpoint, ...]:
        look_up = self._looking_up.get(target)
        if look_up is None:
            look_up = self._loop.run_in_executor(None, _resolve, target)
            self._looking_up[target] = look_up
            look_up.add_done_callback(lambda _: self._looking_up.pop(target))
        try:
            async with asyncio.timeout(self._service.timeout_connect):
                return await asyncio.shield(look_up)
        except TimeoutError:
            log.error(f"Resolving {target}: TIMEOUTconnect exceeded")
        except OSError as error:
            log.error(f"Error resolving {target}: {os_reason(error)}")
        return ()

    async def _attempt(self, endpoint: Endpoint, log: Channel) -> socket.socket | None:
        shown = show(endpoint.sockaddr)
        log.info(f"s_connect: connecting {shown}")
        sock: socket.socket | None = None
        try:
            sock = self._open(endpoint)
            await self._complete(sock, endpoint.sockaddr)
        except TimeoutError:
            log.error(f"s_connect: {shown}: TIMEOUTconnect exceeded")
        except OSError as error:
            log.error(f"s_connect: connect {shown}: {os_reason(error)} ({error.errno})")
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            return sock
        if sock is not None:
            sock.close()
        return None

    async def _complete(self, sock: socket.socket, sockaddr: SocketAddress) -> None:
        """Connect within TIMEOUTconnect. Raises TimeoutError, or OSError with the target's refusal.

        The loop's own call inside asyncio.timeout costs twice as much, for each connection of a server.
        """
        outcome = sock.connect_ex(sockaddr)
        if outcome == errno.EINPROGRESS:
            writable: asyncio.Future[None] = self._loop.create_future()
            timer = self._loop.call_later(self._service.timeout_connect, _expire, writable)
            self._loop.add_writer(sock.fileno(), _wake, writable)
            try:
                await writable
            finally:
                timer.cancel()
                self._loop.remove_writer(sock.fileno())
            outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if outcome:
            raise OSError(outcome, os.strerror(outcome))

    def _open(self, endpoint: Endpoint) -> socket.socket:
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sockopt.apply(sock, self._settings[endpoint.family])
            for family, source in self._targets.sources:
                if family == endpoint.family:
                    sock.bind(source)
                    break
        except BaseException:
            sock.close()
            raise
        return sock


def _permitted(endpoints: Iterable[Endpoint], permit: Permit) -> list[Endpoint]:
    permitted = []
    refusal: BackendError | None = None
    for endpoint in endpoints:
        try:
            permit(endpoint.sockaddr)
        except BackendError as error:
            refusal = error
        else:
            permitted.append(endpoint)
    if refusal is not None and not permitted:
        raise ConnectError(refusal.reason, Unreached.FORBIDDEN) from refusal
    return permitted


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _expire(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())
