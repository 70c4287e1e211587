"""One address that can be connected to, and from where."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from culvert.address import Address, HostPort, UnixPath
from culvert.resolve import SocketAddress, resolve

LOCALHOST = "localhost"

ADDRESS_LIMIT = 16
"""Most addresses of one name that are used: whoever answers for a name may send thousands, and each would
be a socket of one connection."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that can be connected to, and the target of the configuration that it came from."""

    target: Address
    family: int
    sockaddr: SocketAddress

    def __hash__(self) -> int:
        """By the address alone, which is quicker: every connection looks for its own."""
        return hash(self.sockaddr)

    @property
    def server_name(self) -> str | None:
        """The host name to ask a TLS server for; None for addresses, which RFC 6066, 3 does not allow."""
        if not isinstance(self.target, HostPort):
            return None
        host = self.target.host or LOCALHOST
        return None if is_address(host) else host


class Source(Protocol):
    """From which address one connection is made, in place of the service's `local`.

    An endpoint of another family than its own is not connected to.
    """

    @property
    def family(self) -> int: ...

    def bind(self, sock: socket.socket) -> None:
        """Make it the source of a socket of its family. Raises OSError."""


def is_address(host: str) -> bool:
    """Whether this is an IP address, which no look-up can change."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def endpoints_of(target: Address) -> tuple[Endpoint, ...]:
    """What a target stands for now, each address once, in the order in which they are to be tried.

    Waits for the resolver. Raises OSError where a name has no answer.
    """
    if isinstance(target, UnixPath):
        return (Endpoint(target, socket.AF_UNIX, target.path),)
    found = resolve(target.host or LOCALHOST, target.port)
    return usable(Endpoint(target, family, sockaddr) for family, sockaddr in found)


def usable(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """What is used of the addresses of a name: each once, the families by turns, a bounded number."""
    return tuple(interleaved(tuple(dict.fromkeys(endpoints)))[:ADDRESS_LIMIT])


def interleaved(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The families by turns, that of the first address first (RFC 8305, 4); the order in each stays."""
    queues: dict[int, list[Endpoint]] = {}
    for endpoint in endpoints:
        queues.setdefault(endpoint.family, []).append(endpoint)
    return list(_by_turns(queues.values()))


def _by_turns(queues: Iterable[list[Endpoint]]) -> Iterable[Endpoint]:
    waiting = [iter(queue) for queue in queues]
    while waiting:
        left = []
        for queue in waiting:
            if (endpoint := next(queue, None)) is not None:
                yield endpoint
                left.append(queue)
        waiting = left
