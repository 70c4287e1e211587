"""The socket options that `socket = a|l|r:NAME=VALUE` may name, applied to real sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from culvert.config.model import SocketOption

_LEVELS = {
    "SO": socket.SOL_SOCKET,
    "TCP": socket.IPPROTO_TCP,
    "IP": socket.IPPROTO_IP,
    "IPV6": socket.IPPROTO_IPV6,
}
_NOT_IN_SOCKET_MODULE = {"IP_FREEBIND": 15}


class SocketOptionError(OSError):
    """An option that the kernel refused; `strerror` is its reason."""

    def __init__(self, option: SocketOption, error: OSError) -> None:
        super().__init__(error.errno, error.strerror)
        self.option = option


def apply(sock: socket.socket, options: Iterable[SocketOption], target: str) -> None:
    """Set the options for `target`: `a` listening, `l` accepted, `r` connected. Raises SocketOptionError.

    TCP_NODELAY is set on accepted and connected TCP sockets unless an option says otherwise, and what
    belongs to TCP or IP is passed over on a Unix socket.
    """
    chosen = {option.name: option for option in options if option.target == target}
    internet = sock.family != socket.AF_UNIX
    if internet and target != "a" and "TCP_NODELAY" not in chosen:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in chosen.values():
        if internet or option.name.startswith("SO_"):
            _set(sock, option)


def reset_on_close(sock: socket.socket) -> None:
    """Make the coming close send an RST (SO_LINGER of no time, socket(7)); Unix sockets just close."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _set(sock: socket.socket, option: SocketOption) -> None:
    level = _LEVELS[option.name.partition("_")[0]]
    number = _NOT_IN_SOCKET_MODULE.get(option.name) or getattr(socket, option.name)
    try:
        sock.setsockopt(level, number, _packed(option))
    except OSError as error:
        raise SocketOptionError(option, error) from None


def _packed(option: SocketOption) -> int | bytes:
    match option.value:
        case int(number):
            return number
        case str(name):
            return name.encode() + b"\0"
        case (first, second):
            # SO_LINGER is a pair of ints, the time-outs are a struct timeval of longs.
            return struct.pack("ii" if option.name == "SO_LINGER" else "ll", first, second)
