"""Listening sockets that the service manager made: socket activation, sd_listen_fds(3).

Each goes to the service of its name (FileDescriptorName= in systemd), the others one by one to the services
that have none yet, in the order of both lists. A reload assigns them again by the same rule, to the same end
as a restart. The manager goes on holding them, so they are never unlinked and outlive the daemon.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from culvert.address import Address, HostPort, UnixPath, show
from culvert.config.model import Service
from culvert.errors import ConfigurationError, os_reason
from culvert.listen import Bound

FIRST = 3
"""The first passed descriptor (SD_LISTEN_FDS_START)."""

MOST = 4096
"""More than any manager passes: a number from the environment must not lead to a long search."""

_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES")
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "Unix"}
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104


@dataclass(frozen=True, slots=True)
class Passed:
    """One socket of the manager's; `index` counts from 1."""

    index: int
    name: str
    bound: Bound

    def __str__(self) -> str:
        called = f', named "{self.name}"' if self.name else ""
        return f"socket {self.index} of the service manager (descriptor {FIRST + self.index - 1}{called})"


class Activation:
    """All the sockets that were passed; empty in a daemon that binds its own."""

    def __init__(self, sockets: Iterable[Passed] = ()) -> None:
        self.sockets = tuple(sockets)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Activation:
        """What the environment says was passed to this process; the variables are removed.

        Raises ConfigurationError for what is not a listening stream socket.
        """
        count, pid, _, names = (environment.pop(name, "") for name in _VARIABLES)
        if pid != str(os.getpid()):
            return cls()
        if not (count.isascii() and count.isdigit() and len(count) < 6 and int(count) <= MOST):
            raise ConfigurationError.single(
                f"LISTEN_FDS is '{count[:20]}', expected how many sockets were passed, {MOST} at most"
            )
        named = names.split(":") if names else [""] * int(count)
        if len(named) != int(count):
            raise ConfigurationError.single(
                f"LISTEN_FDNAMES has {len(named)} name(s) for {count} socket(s) in LISTEN_FDS"
            )
        return cls(_checked(index, name) for index, name in enumerate(named, 1))

    def assign(self, services: Sequence[Service]) -> Mapping[str, tuple[Passed, ...]]:
        """The sockets of each service that gets some, by its name. Raises ConfigurationError."""
        accepting = [service for service in services if service.accept is not None]
        left = list(self.sockets)
        found: dict[str, tuple[Passed, ...]] = {}
        for service in accepting:
            own = tuple(one for one in left if one.name == service.name)
            if own:
                found[service.name] = own
                left = [one for one in left if one not in own]
        for service in accepting:
            if left and service.name not in found:
                found[service.name] = (left.pop(0),)
        for one in left:
            raise ConfigurationError.single(
                f"There is no service for {one}, {show(one.bound.address)}",
                hint="each takes the socket of its name, else the next one: leave out what is too much",
            )
        for service in accepting:
            _check_family(service, found.get(service.name, ()))
        return found


def _checked(index: int, name: str) -> Passed:
    fd = FIRST + index - 1
    called = f', named "{name}"' if name else ""
    what = f"Socket {index} of the service manager (descriptor {fd}{called})"
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigurationError.single(f"{what} is no socket: {os_reason(error)}") from None
    fault = ""
    if sock.family not in _FAMILIES:
        fault = "is neither for IPv4, IPv6 nor Unix"
    elif sock.type != socket.SOCK_STREAM:
        fault = "is no stream socket: ListenStream= makes one"
    elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        fault = "does not listen: Accept=no passes one that does"
    if fault:
        sock.detach()
        raise ConfigurationError.single(f"{what} {fault}")
    sock.set_inheritable(False)
    sock.setblocking(False)
    return Passed(index, name, Bound(sock, sock.getsockname(), (), passed=True))


def _check_family(service: Service, sockets: Iterable[Passed]) -> None:
    for one in sockets:
        unix = one.bound.sock.family == socket.AF_UNIX
        if unix != isinstance(service.accept, UnixPath):
            raise ConfigurationError.single(
                f"Service [{service.name}] accepts at {service.accept}, and gets {one}, "
                f"which is for {_FAMILIES[one.bound.sock.family]}: {show(one.bound.address)}",
                service.where("accept"),
                service.name,
            )


def remarks(service: Service, sockets: Iterable[Passed]) -> Iterator[str]:
    """Where the manager's sockets are not what the service's own options say, a sentence each."""
    for one in sockets:
        if service.accept is not None and not _agrees(service.accept, one.bound):
            yield (
                f"Service [{service.name}] accepts at {show(one.bound.address)}, {one}, "
                f"and not at {service.accept} as 'accept' says"
            )
        if isinstance(service.accept, UnixPath) and (service.setuid, service.setgid) != (None, None):
            yield (
                f"Service [{service.name}]: 'setuid' and 'setgid' do not change the owner of {one}; "
                "SocketUser= and SocketGroup= do"
            )


def _agrees(accept: Address, bound: Bound) -> bool:
    address = bound.address
    if not isinstance(accept, HostPort) or not isinstance(address, tuple):
        return str(address) == str(accept)
    port = accept.port
    if isinstance(port, str):
        with contextlib.suppress(OSError):
            port = socket.getservbyname(port, "tcp")
    host = accept.host
    alike = address[0] in _WILDCARDS if host is None else host.strip("[]") == address[0]
    return alike and address[1] == port
