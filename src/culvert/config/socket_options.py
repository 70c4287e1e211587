"""The socket options that `socket` can set, and the kind of value that each takes."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from culvert.config.model import SocketOption
from culvert.config.values import BadValue, Form, meant, number


class Kind(enum.Enum):
    """How the value of a socket option is written."""

    FLAG = "yes or no"
    NUMBER = "a number, 0 or more"
    LINGER = "yes or no and, behind a colon, seconds"
    TIME = "seconds and, behind a colon, microseconds"
    INTERFACE = "the name of a network interface"


SOCKET_OPTIONS: Mapping[str, Kind] = MappingProxyType(
    {
        "SO_DEBUG": Kind.FLAG,
        "SO_DONTROUTE": Kind.FLAG,
        "SO_KEEPALIVE": Kind.FLAG,
        "SO_LINGER": Kind.LINGER,
        "SO_OOBINLINE": Kind.FLAG,
        "SO_RCVBUF": Kind.NUMBER,
        "SO_SNDBUF": Kind.NUMBER,
        "SO_RCVLOWAT": Kind.NUMBER,
        "SO_SNDLOWAT": Kind.NUMBER,
        "SO_RCVTIMEO": Kind.TIME,
        "SO_SNDTIMEO": Kind.TIME,
        "SO_REUSEADDR": Kind.FLAG,
        "SO_BINDTODEVICE": Kind.INTERFACE,
        "TCP_KEEPCNT": Kind.NUMBER,
        "TCP_KEEPIDLE": Kind.NUMBER,
        "TCP_KEEPINTVL": Kind.NUMBER,
        "IP_TOS": Kind.NUMBER,
        "IP_TTL": Kind.NUMBER,
        "TCP_NODELAY": Kind.FLAG,
        "IP_FREEBIND": Kind.FLAG,
        "IPV6_V6ONLY": Kind.FLAG,
    }
)
"""Every name that stunnel knows on Linux, in its order."""

_FLAGS = {"yes": 1, "1": 1, "no": 0, "0": 0}


def socket_option(text: str) -> SocketOption:
    """`a|l|r:NAME=VALUE`; raises BadValue."""
    match = re.fullmatch(r"(?P<target>[alrALR]):(?P<name>[^=]*)=(?P<value>.*)", text)
    if match is None:
        raise BadValue()
    name = match["name"].strip().upper()
    if name not in SOCKET_OPTIONS:
        raise BadValue("the name of a socket option behind the colon", meant(name, SOCKET_OPTIONS))
    kind = SOCKET_OPTIONS[name]
    try:
        value = _PARSERS[kind](match["value"].strip())
    except BadValue:
        raise BadValue(f"{kind.value} for {name}") from None
    return SocketOption(match["target"].lower(), name, value)


def _flag(text: str) -> int:
    if text.lower() not in _FLAGS:
        raise BadValue()
    return _FLAGS[text.lower()]


def _linger(text: str) -> tuple[int, int]:
    on, _, seconds = text.partition(":")
    return _flag(on), number(seconds or "0")


def _time(text: str) -> tuple[int, int]:
    seconds, _, fraction = text.partition(":")
    microseconds = number(fraction or "0")
    if microseconds >= 1_000_000:
        raise BadValue()
    return number(seconds), microseconds


def _interface(text: str) -> str:
    # IFNAMSIZ is 16 with the final NUL (netdevice(7)).
    if re.fullmatch(r"[^\s/]+", text) is None or len(text.encode()) > 15:
        raise BadValue()
    return text


_PARSERS: Mapping[Kind, Callable[[str], int | tuple[int, int] | str]] = {
    Kind.FLAG: _flag,
    Kind.NUMBER: number,
    Kind.LINGER: _linger,
    Kind.TIME: _time,
    Kind.INTERFACE: _interface,
}

SOCKET_OPTION = Form("a, l or r, a colon and NAME=VALUE", socket_option)
