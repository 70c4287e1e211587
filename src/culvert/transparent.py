"""Taking the client's place towards its target, and the target's towards its client (`transparent`).

Linux lets a socket have an address that is not this machine's once IP_TRANSPARENT is set on it (ip(7)).
A connection that netfilter redirected (REDIRECT, DNAT) remembers where it was meant to go
(SO_ORIGINAL_DST); one that it handed over as it was (TPROXY) still has that as its own local address.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from culvert.config.model import Service, Transparent
from culvert.errors import BackendError, ConfigurationError, os_reason
from culvert.resolve import InternetAddress

_TRANSPARENT = {
    socket.AF_INET: (socket.IPPROTO_IP, 19),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 75),
}
"""IP_TRANSPARENT and IPV6_TRANSPARENT (linux/in.h, linux/in6.h), which the socket module does not name."""

_ORIGINAL_DESTINATION = 80
"""SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h)."""

_IP_BIND_ADDRESS_NO_PORT = 24
"""The port is chosen as the socket connects, so it need be unique for its target only (ip(7))."""

_UNPRIVILEGED = 1024
"""The first port that anybody may have."""


def setting(family: int) -> tuple[int, int, int]:
    """The arguments of the setsockopt call that permits a socket other machines' addresses."""
    return (*_TRANSPARENT[socket.AddressFamily(family)], 1)


def obstacle(family: int) -> OSError | None:
    """Why this process cannot have transparent sockets of a family; None where it can."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(*setting(family))
    except OSError as error:
        return error
    return None


def limits(services: Iterable[Service]) -> list[str]:
    """What `transparent` cannot do in this process, a sentence each.

    Raises ConfigurationError where a service can do nothing of what it is asked for.
    """
    found = []
    for service in services:
        failure = _obstacle() if service.transparent is not Transparent.NONE else None
        if failure is None:
            continue
        why = f"this process may not use addresses of other machines: {os_reason(failure)}"
        if Transparent.SOURCE in service.transparent:
            raise ConfigurationError.single(
                f"Service [{service.name}] cannot connect from its clients' addresses: {why}",
                service.where("transparent"),
                service.name,
                hint="it takes root, or the capability CAP_NET_RAW",
            )
        found.append(
            f"Service [{service.name}] takes connections that netfilter redirected, but none by TPROXY: {why}"
        )
    return found


def _obstacle() -> OSError | None:
    """Of either family; a system without IPv6 has none of that to speak of."""
    failures = [obstacle(family) for family in (socket.AF_INET, socket.AF_INET6)]
    return next((one for one in failures if one is not None and one.errno != errno.EAFNOSUPPORT), None)


def unmapped(address: InternetAddress) -> InternetAddress:
    """The address itself, in IPv4 where a socket of IPv6 writes it as ::ffff:a.b.c.d."""
    mapped = ipaddress.ip_address(address[0].partition("%")[0])
    if isinstance(mapped, ipaddress.IPv6Address) and mapped.ipv4_mapped is not None:
        return str(mapped.ipv4_mapped), address[1]
    return address


def family_of(address: InternetAddress) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


@dataclass(frozen=True, slots=True)
class ClientSource:
    """The client's own address, as the source of a connection to its target.

    `keep_port`: its port as well, where that is free. Not for a connection to where the client was going
    itself: netfilter would take the two for one.
    """

    sockaddr: InternetAddress
    keep_port: bool

    @classmethod
    def of(cls, client: InternetAddress | None, *, keep_port: bool) -> ClientSource:
        """Raises BackendError for a client without an address."""
        if client is None:
            raise BackendError("transparent: the client has no internet address to connect from")
        return cls(unmapped(client), keep_port)

    @property
    def family(self) -> int:
        return family_of(self.sockaddr)

    def bind(self, sock: socket.socket) -> None:
        """Make it the source of a socket of its family. Raises OSError."""
        sock.setsockopt(*setting(self.family))
        host, port, *rest = self.sockaddr
        if self.keep_port and port >= _UNPRIVILEGED:
            try:
                sock.bind(self.sockaddr)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((host, 0, *rest))


def original_destination(accepted: socket.socket) -> InternetAddress:
    """Where the client of an accepted connection meant to go.

    Raises BackendError where it meant to come here: to connect it to there would go round in circles.
    """
    here = unmapped(accepted.getsockname())
    wanted = _before_redirection(accepted, family_of(here)) or here
    if wanted[1] == here[1] and _is_local(wanted):
        raise BackendError(
            f"transparent: the client was going to {wanted[0]}:{wanted[1]}, which is this service itself: "
            "its connection was not redirected"
        )
    return wanted


def _before_redirection(accepted: socket.socket, family: int) -> InternetAddress | None:
    """What netfilter's connection tracking knows; None where it knows nothing, or is not in use."""
    with contextlib.suppress(OSError):
        if family == socket.AF_INET:
            found = accepted.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DESTINATION, 16)
            port, address = struct.unpack("!2xH4s8x", found)
            return socket.inet_ntop(family, address), port
        found = accepted.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, 28)
        port, address = struct.unpack("!2xH4x16s4x", found)
        return socket.inet_ntop(family, address), port, 0, struct.unpack("=24xI", found)[0]
    return None


def _is_local(address: InternetAddress) -> bool:
    """Whether it is one of this machine's: the system would then send from the very same address.

    Nothing is sent. To try to bind to it would tell nothing where net.ipv4.ip_nonlocal_bind is set.
    """
    if ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        return True
    try:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address[0], 9, *address[2:]))
            source = str(probe.getsockname()[0])
    except OSError:
        return False
    return source.partition("%")[0] == str(address[0]).partition("%")[0]


def route(
    taken: Transparent, accepted: object, client: InternetAddress | None
) -> tuple[ClientSource | None, InternetAddress | None]:
    """From where and to where a connection leads whose place is `taken`: `accepted` is the client's stream.

    Raises BackendError where that cannot be.
    """
    source = towards = None
    if Transparent.DESTINATION in taken:
        if not isinstance(accepted, socket.socket) or accepted.family == socket.AF_UNIX:
            raise BackendError("transparent: only a client that comes over the internet has a destination")
        towards = original_destination(accepted)
    if Transparent.SOURCE in taken:
        source = ClientSource.of(client, keep_port=towards is None)
    return source, towards
