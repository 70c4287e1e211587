"""The socket options that `socket = a|l|r:NAME=VALUE` sets, prepared once and applied to many sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from culvert.config.model import SocketOption

Setting = tuple[int, int, int | bytes]
"""The arguments of one setsockopt call."""

_LEVELS = {
    "SO": socket.SOL_SOCKET,
    "TCP": socket.IPPROTO_TCP,
    "IP": socket.IPPROTO_IP,
    "IPV6": socket.IPPROTO_IPV6,
}
_NOT_IN_SOCKET_MODULE = {"IP_FREEBIND": 15}


def settings(options: Iterable[SocketOption], target: str, family: int) -> tuple[Setting, ...]:
    """What to set on sockets of one `family` for `target`: `a` listening, `l` accepted, `r` connected.

    Options of IP and TCP, and keep-alive, have no meaning for a Unix socket, nor those of IPv6 for IPv4: they
    are left out.
    """
    return tuple(
        _setting(option) for option in options if option.target == target and _fits(option.name, family)
    )


def apply(sock: socket.socket, chosen: Iterable[Setting]) -> None:
    """Make the calls. Raises OSError where the kernel refuses one."""
    for level, number, value in chosen:
        sock.setsockopt(level, number, value)


def restore(sock: socket.socket, options: Iterable[tuple[int, int]]) -> None:
    """Give options, each a level and a number, the value that a new socket has. Raises OSError."""
    with socket.socket(sock.family, sock.type) as pristine:
        for level, number in options:
            value: int | bytes = pristine.getsockopt(level, number, _VALUE_LIMIT)
            lock = _BUFFER_LOCKS.get(number) if level == socket.SOL_SOCKET else None
            if lock is not None:
                # The kernel doubles what is set, and stops to adapt the buffer (socket(7)).
                value = pristine.getsockopt(level, number) // 2
            sock.setsockopt(level, number, value)
            if lock is not None:
                sock.setsockopt(level, _SO_BUF_LOCK, sock.getsockopt(level, _SO_BUF_LOCK) & ~lock)


_VALUE_LIMIT = 64
"""More bytes than any option here has: the longest is a pair of longs, or an interface's name."""

_SO_BUF_LOCK = 72
"""Which buffers the kernel must not adapt (Linux 5.14, include/uapi/asm-generic/socket.h)."""

_BUFFER_LOCKS = {socket.SO_SNDBUF: 1, socket.SO_RCVBUF: 2}
"""The bits of SO_BUF_LOCK."""


def reset_on_close(sock: socket.socket) -> None:
    """Make the coming close send an RST (SO_LINGER of no time, socket(7)); Unix sockets just close."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


_RESET = struct.pack("ii", 1, 0)


def _fits(name: str, family: int) -> bool:
    level = _LEVELS[name.partition("_")[0]]
    if name == "SO_KEEPALIVE":
        return family != socket.AF_UNIX
    if level == socket.IPPROTO_IPV6:
        return family == socket.AF_INET6
    return level == socket.SOL_SOCKET or family != socket.AF_UNIX


def _setting(option: SocketOption) -> Setting:
    level = _LEVELS[option.name.partition("_")[0]]
    number = _NOT_IN_SOCKET_MODULE.get(option.name) or int(getattr(socket, option.name))
    match option.value:
        case int(value):
            return level, number, value
        case str(name):
            return level, number, name.encode() + b"\0"
        case (first, second):
            # SO_LINGER is a pair of ints, the time-outs are a struct timeval of longs.
            packed = struct.pack("ii" if option.name == "SO_LINGER" else "ll", first, second)
            return level, number, packed
