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

    Options of IP and TCP have no meaning for a Unix socket, nor those of IPv6 for IPv4: they are left out.
    """
    return tuple(
        _setting(option) for option in options if option.target == target and _fits(option.name, family)
    )


def apply(sock: socket.socket, chosen: Iterable[Setting]) -> None:
    """Make the calls. Raises OSError where the kernel refuses one."""
    for level, number, value in chosen:
        sock.setsockopt(level, number, value)


def reset_on_close(sock: socket.socket) -> None:
    """Make the coming close send an RST (SO_LINGER of no time, socket(7)); Unix sockets just close."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


_RESET = struct.pack("ii", 1, 0)


def _fits(name: str, family: int) -> bool:
    level = _LEVELS[name.partition("_")[0]]
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
