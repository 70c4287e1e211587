"""Addresses as a configuration writes them, and how a log shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostPort:
    """A TCP endpoint before it is resolved.

    `host` is None where the configuration gave a port alone: every IPv4 address for `accept`, localhost
    for `connect`. `port` is a number from 0 to 65535 or the name of a service (services(5)).
    """

    host: str | None
    port: int | str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.host is not None else str(self.port)


@dataclass(frozen=True, slots=True)
class UnixPath:
    """A Unix stream socket in the file system."""

    path: str

    def __str__(self) -> str:
        return self.path


Address = HostPort | UnixPath


def show(sockaddr: object) -> str:
    """A socket address as stunnel's log writes it: `127.0.0.1:80`, `::1:80`, a path, or `unix socket`.

    `sockaddr` is what `getsockname`, `getpeername` or `accept` returned.
    """
    if isinstance(sockaddr, tuple) and len(sockaddr) >= 2:
        return f"{sockaddr[0]}:{sockaddr[1]}"
    if isinstance(sockaddr, bytes):
        sockaddr = sockaddr.decode("utf-8", "replace")
    return str(sockaddr) or "unix socket"
