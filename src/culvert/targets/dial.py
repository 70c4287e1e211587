"""Sockets to connect with: the service's socket options and source address."""

from __future__ import annotations

import errno
import os
import socket

from culvert import sockopt
from culvert.config.model import Service
from culvert.errors import Unreached
from culvert.resolve import SocketAddress
from culvert.targets.endpoint import Endpoint, Source

_CAUSES = {
    errno.ECONNREFUSED: Unreached.REFUSED,
    errno.ENOENT: Unreached.REFUSED,  # a Unix socket that is not there
    errno.EHOSTUNREACH: Unreached.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Unreached.HOST_UNREACHABLE,
    errno.ENETUNREACH: Unreached.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Unreached.NETWORK_UNREACHABLE,
    errno.ETIMEDOUT: Unreached.TIMED_OUT,
}

_BIND_TO_DEVICE = (socket.SOL_SOCKET, socket.SO_BINDTODEVICE)

_OWN = frozenset(
    {
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EAGAIN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)


def cause_of(error: OSError) -> Unreached:
    """What a failed attempt says of its target."""
    if isinstance(error, TimeoutError):
        return Unreached.TIMED_OUT
    return _CAUSES.get(error.errno or 0, Unreached.FAILED)


def is_own(error: OSError) -> bool:
    """Whether an attempt failed for what this machine is short of, which says nothing of the target."""
    return error.errno in _OWN


class Dialer:
    """Makes the sockets of one service's outgoing connections."""

    def __init__(self, service: Service, sources: tuple[tuple[int, SocketAddress], ...]) -> None:
        self._settings: dict[int, tuple[sockopt.Setting, ...]] = {
            family: sockopt.settings(service.socket_options, "r", family)
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        }
        self._local = dict(reversed(sources))  # of each family the first one

    def open_datagrams(self, family: int) -> socket.socket:
        """A bound UDP socket. Of the socket options it has the one that says through which interface it goes.

        Raises OSError.
        """
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            device = [one for one in self._settings[family] if one[:2] == _BIND_TO_DEVICE]
            sockopt.apply(sock, device)
            anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104
            sock.bind(self._local.get(family, (anywhere, 0)))
        except BaseException:
            sock.close()
            raise
        return sock

    def open(self, endpoint: Endpoint, source: Source | None) -> socket.socket:
        """A non-blocking socket, ready to connect to `endpoint` from `source`. Raises OSError."""
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sockopt.apply(sock, self._settings[endpoint.family])
            if source is None:
                if endpoint.family in self._local:
                    sock.bind(self._local[endpoint.family])
            elif source.family == endpoint.family:
                source.bind(sock)
            else:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        except BaseException:
            sock.close()
            raise
        return sock
