"""Listening sockets: made outside the jail, as root, and handed to every worker by inheritance."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from culvert import sockopt
from culvert.address import HostPort, UnixPath, show
from culvert.config.model import Service
from culvert.errors import ConfigurationError, os_reason
from culvert.resolve import InternetAddress, SocketAddress, resolve

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One address of several that could not be bound."""

    address: str
    reason: str
    errno: int


@dataclass(slots=True)
class Listener:
    """The sockets of one service's `accept`, and the addresses that could not be had."""

    sockets: tuple[socket.socket, ...]
    refusals: tuple[Refusal, ...]
    path: str | None = None
    """A Unix socket's path, to be removed when nobody listens there any more."""

    def close(self) -> None:
        """Stop listening in this process; a Unix socket's path is removed."""
        for sock in self.sockets:
            sock.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108


def listen(service: Service) -> Listener:
    """Bind and listen on the service's `accept`. Raises ConfigurationError where nothing could be bound."""
    if isinstance(service.accept, UnixPath):
        return _listen_unix(service, service.accept.path)
    if isinstance(service.accept, HostPort):
        return _listen_internet(service, service.accept)
    raise TypeError(f"service {service.name} has no accept")


def _listen_internet(service: Service, address: HostPort) -> Listener:
    sockets: list[socket.socket] = []
    refusals: list[Refusal] = []
    for family, (host, port, *rest) in _addresses(service, address):
        # Where the kernel chose the port for the first address, the others follow it.
        chosen = sockets[0].getsockname()[1] if sockets and port == 0 else port
        sockaddr = (host, chosen, *rest)
        try:
            sockets.append(_bound(service, family, sockaddr, only_ipv6=bool(sockets)))
        except OSError as error:
            refusals.append(Refusal(show(sockaddr), os_reason(error), error.errno or 0))
    if not sockets:
        raise ConfigurationError.single(
            f"Binding service [{service.name}] failed: "
            + "; ".join(f"{refusal.address}: {refusal.reason} ({refusal.errno})" for refusal in refusals),
            service.where("accept"),
            service.name,
        )
    return Listener(tuple(sockets), tuple(refusals))


def _addresses(service: Service, address: HostPort) -> Iterator[tuple[int, InternetAddress]]:
    # A port alone means every IPv4 address, and every IPv6 address besides.
    hosts = [address.host] if address.host is not None else ["0.0.0.0", "::"]  # noqa: S104
    for host in hosts:
        try:
            yield from resolve(host, address.port, passive=True)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot resolve the address {address}: {os_reason(error)}",
                service.where("accept"),
                service.name,
            ) from None


def _bound(
    service: Service, family: int, sockaddr: SocketAddress, *, only_ipv6: bool = False
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if only_ipv6 and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sockopt.apply(sock, sockopt.settings(service.socket_options, "a", family))
        sock.bind(sockaddr)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(service: Service, path: str) -> Listener:
    try:
        _remove_stale(path)
        sock = _bound(service, socket.AF_UNIX, path)
    except OSError as error:
        raise ConfigurationError.single(
            f"Binding service [{service.name}] to {path} failed: {os_reason(error)} ({error.errno})",
            service.where("accept"),
            service.name,
        ) from None
    return Listener((sock,), (), os.path.abspath(path))  # noqa: PTH100


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError where somebody does."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108
            return
    raise OSError(errno.EADDRINUSE, "in use")
