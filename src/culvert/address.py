"""Addresses as a configuration writes them, and how a log shows them."""

from __future__ import annotations

import ipaddress
import re
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

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

URL_LENGTH_LIMIT = 2048
"""Longest URL in characters: real ones have a few dozen, and a peer's certificate may name any."""

_HTTP_URL = re.compile(
    r"(?i:http)://(?P<host>[a-z0-9_](?:[a-z0-9_.-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>/[!-~]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """Where an HTTP request goes: `target` is the path with its query, as the request line has it."""

    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> HttpUrl:
        """From `http://HOST[:PORT][/PATH]`, without user, fragment or spaces. Raises ValueError."""
        match = _HTTP_URL.fullmatch(text) if len(text) <= URL_LENGTH_LIMIT else None
        port = int(match["port"] or 80) if match is not None else 0
        if match is None or not 0 < port < 65536 or "#" in text:
            raise ValueError("this is not a URL of the form http://HOST[:PORT][/PATH]")
        return cls(match["host"].strip("[]"), port, match["target"] or "/")

    @property
    def authority(self) -> str:
        """The host as the `Host` header has it (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"http://{self.authority}{self.target}"


def unwrapped(host: str) -> IpAddress:
    """A resolved address without its zone, and the IPv4 one where IPv6 only wraps it (RFC 4291, 2.5.5.2).

    Raises ValueError for what is no address.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def show(sockaddr: object) -> str:
    """A socket address as stunnel's log writes it: `127.0.0.1:80`, `::1:80`, a path, or `unix socket`.

    `sockaddr` is what `getsockname`, `getpeername` or `accept` returned.
    """
    if isinstance(sockaddr, tuple) and len(sockaddr) >= 2:
        return f"{sockaddr[0]}:{sockaddr[1]}"
    if isinstance(sockaddr, bytes):
        sockaddr = sockaddr.decode("utf-8", "replace")
    return str(sockaddr) or "unix socket"
