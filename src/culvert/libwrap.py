"""TCP wrappers: the system's libwrap, asked whether hosts.allow and hosts.deny let a client in.

The library is old and made for a process of its own, so here is what it would do to a daemon, and what is
done about it:
- It is not safe for threads, and asks the DNS when a rule has a name in it: one thread of the worker asks it,
  one question after the other.
- A rule on a user has it ask the client's ident server, under an alarm signal that jumps out of whatever code
  runs: it is told that the user is unknown, so that it never asks.
- `twist` replaces the process by a command. The library refuses that to a process that it has seen twice;
  it is told so at once, and takes such a rule for a refusal. `spawn` forks, and works.
- It has its tables where the process sees them: inside the jail.
"""

from __future__ import annotations

import ctypes
import functools
import ipaddress
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from culvert.config.model import Service
from culvert.errors import ConfigurationError
from culvert.resolve import InternetAddress

LIBRARY = "libwrap.so.0"
TABLES = ("/etc/hosts.allow", "/etc/hosts.deny")

_STRING = 128
_DAEMON, _USER, _CLIENT_SIN = 2, 3, 6  # RQ_* of tcpd.h
_UNKNOWN = b"unknown"


class _Host(ctypes.Structure):
    """`struct host_info` of tcpd.h."""

    _fields_ = (
        ("name", ctypes.c_char * _STRING),
        ("addr", ctypes.c_char * _STRING),
        ("sin", ctypes.c_void_p),
        ("unit", ctypes.c_void_p),
        ("request", ctypes.c_void_p),
    )


class _Request(ctypes.Structure):
    """`struct request_info` of tcpd.h, and room behind it for what a build of it may add."""

    _fields_ = (
        ("fd", ctypes.c_int),
        ("user", ctypes.c_char * _STRING),
        ("daemon", ctypes.c_char * _STRING),
        ("pid", ctypes.c_char * 10),
        ("client", _Host),
        ("server", _Host),
        ("sink", ctypes.c_void_p),
        ("hostname", ctypes.c_void_p),
        ("hostaddr", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("config", ctypes.c_void_p),
        ("room", ctypes.c_char * 256),
    )


class TcpWrappers:
    """The library, once a process, as `load` gives it. `asking` is the one thread that it is asked in."""

    def __init__(self) -> None:
        """Raises OSError where the library is missing or is not what it should be."""
        self._library = library = ctypes.CDLL(LIBRARY)
        try:
            ctypes.c_int.in_dll(library, "resident").value = 1
            self._hostname = _pointer(library.sock_hostname)
            self._hostaddr = _pointer(library.sock_hostaddr)
            library.hosts_access.argtypes = (ctypes.c_void_p,)
            self._request(b"probe", ("127.0.0.1", 7))
        except (AttributeError, ValueError) as error:
            raise OSError(f"{LIBRARY} is not the one that is known: {error}") from None
        # Its thread starts with the first question: after the fork, that is.
        self.asking = ThreadPoolExecutor(1, thread_name_prefix="libwrap")

    def allows(self, service: str, address: InternetAddress) -> bool:
        """Whether the tables let a client in. May take as long as the DNS does."""
        request, sockaddr = self._request(service.encode(), address)
        allowed = bool(self._library.hosts_access(ctypes.byref(request)))
        del sockaddr  # the request points to it
        return allowed

    def _request(self, daemon: bytes, address: InternetAddress) -> tuple[_Request, Any]:
        request = _Request()
        sockaddr = _sockaddr(address)
        init = self._library.request_init
        init.restype = ctypes.c_void_p
        init(
            ctypes.byref(request),
            *(ctypes.c_int(_DAEMON), ctypes.c_char_p(daemon)),
            *(ctypes.c_int(_USER), ctypes.c_char_p(_UNKNOWN)),
            *(ctypes.c_int(_CLIENT_SIN), ctypes.cast(sockaddr, ctypes.c_void_p)),
            ctypes.c_int(0),
        )
        # A library of another layout would have put them elsewhere.
        expected = (daemon[: _STRING - 1], _UNKNOWN, ctypes.addressof(sockaddr))
        if (request.daemon, request.user, request.client.sin) != expected:
            raise ValueError("its request has another layout")
        request.hostname, request.hostaddr = self._hostname, self._hostaddr
        return request, sockaddr


def _pointer(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


def _sockaddr(address: InternetAddress) -> Any:
    """`struct sockaddr_in` or `sockaddr_in6`; a mapped address as what it is (RFC 4291, 2.5.5.2)."""
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    port = struct.pack("!H", address[1])
    if isinstance(host, ipaddress.IPv4Address):
        packed = struct.pack("=H", socket.AF_INET) + port + host.packed + bytes(8)
    else:
        scope = address[3] if len(address) > 3 else 0
        packed = struct.pack("=H", socket.AF_INET6) + port + bytes(4) + host.packed + struct.pack("=I", scope)
    return ctypes.create_string_buffer(packed, len(packed))


@functools.cache
def _library() -> TcpWrappers:
    return TcpWrappers()


def lets_everybody_in(service: Service, chroot: str | None) -> str | None:
    """A warning about a jail without tables, in which nobody is turned away; None for another one.

    To be called outside the jail.
    """
    if not service.access.libwrap or chroot is None:
        return None
    if any(Path(f"{chroot}{table}").exists() for table in TABLES):
        return None
    return (
        f"Service [{service.name}]: libwrap lets everybody in, for it reads {' and '.join(TABLES)} "
        f"inside of {chroot}, where there is neither"
    )


def load(service: Service) -> TcpWrappers | None:
    """The library, where the service asks for it. Raises ConfigurationError.

    To be called before the jail closes, where there is no such file.
    """
    if not service.access.libwrap:
        return None
    try:
        return _library()
    except OSError as error:
        raise ConfigurationError.single(
            f'"libwrap = yes" needs the system\'s TCP wrappers, which cannot be used: {error}',
            service.where("libwrap"),
            service.name,
            hint="install the package libwrap0 (or tcp_wrappers-libs), or use allowFrom and denyFrom",
        ) from None
