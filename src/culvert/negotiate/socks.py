"""SOCKS 4, 4a and 5 (RFC 1928) inside TLS, on the server's side: the client says where it wants to go.

Only CONNECT is done, and no authentication of SOCKS's own: who may come is a matter of TLS. Where a client
may go is judged by whoever connects (see `socks_targets`), and what comes of it is told in the protocol's
codes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Generator
from typing import Any

from culvert.address import HostPort
from culvert.errors import BackendError, ConnectError, Unreached
from culvert.negotiate.script import (
    Connect,
    Ends,
    Exactly,
    NegotiationError,
    Note,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    Step,
    nothing,
)

USER_LIMIT = 255
"""Most bytes of SOCKS 4's user name, of which nothing is made."""

NAME_LIMIT = 253
"""Most bytes of a host name (RFC 1035, 2.3.4, less the length octets)."""

_NAME = re.compile(rb"[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_])?\.?")

_CONNECT, _BIND, _ASSOCIATE = 1, 2, 3
_COMMANDS = {_BIND: "BIND", _ASSOCIATE: "UDP ASSOCIATE"}

# RFC 1928, 3
_NO_AUTHENTICATION, _NO_METHOD = 0x00, 0xFF

# RFC 1928, 5
_IPV4, _DOMAIN, _IPV6 = 1, 3, 4

# RFC 1928, 6
_SUCCEEDED, _FAILURE, _NOT_ALLOWED, _NETWORK, _HOST, _REFUSED = range(6)
_NO_COMMAND, _NO_ADDRESS_TYPE = 7, 8

REPLIES = {
    Unreached.FAILED: _FAILURE,
    Unreached.FORBIDDEN: _NOT_ALLOWED,
    Unreached.UNRESOLVED: _HOST,
    Unreached.REFUSED: _REFUSED,
    Unreached.NETWORK_UNREACHABLE: _NETWORK,
    Unreached.HOST_UNREACHABLE: _HOST,
    Unreached.TIMED_OUT: _HOST,  # 6, "TTL expired", is for something else
}

_GRANTED, _REJECTED = 90, 91


def after(_: Ends, secured: Secured) -> Script:
    """Ask the client for its target, and connect to it."""
    if secured.redirected:
        yield Connect()
        return
    version = (yield Exactly(Side.CLIENT, 1))[0]
    if version == 5:
        yield from _socks5()
    elif version == 4:
        yield from _socks4()
    else:
        raise NegotiationError(f"the client does not speak SOCKS: its first byte is 0x{version:02x}")


SERVER = Protocol(nothing, after)


# --- version 5 ---


def _socks5() -> Script:
    count = (yield Exactly(Side.CLIENT, 1))[0]
    methods = yield Exactly(Side.CLIENT, count)
    if _NO_AUTHENTICATION not in methods:
        yield Send(Side.CLIENT, bytes((5, _NO_METHOD)))
        raise NegotiationError("the SOCKS client offers no method but those that authenticate")
    yield Send(Side.CLIENT, bytes((5, _NO_AUTHENTICATION)))
    version, command, _, kind = yield Exactly(Side.CLIENT, 4)
    if version != 5:
        raise NegotiationError(f"the SOCKS request has version {version} instead of 5")
    host = yield from _address(kind)
    port = int.from_bytes((yield Exactly(Side.CLIENT, 2)), "big")
    if command != _CONNECT:
        yield from _refuse(_reply5(_NO_COMMAND), _no_such_command(5, command))
    elif host is None:
        yield from _refuse(_reply5(_FAILURE), "the SOCKS request names no host")
    else:
        yield Note(f"SOCKS5 CONNECT {_shown(host, port)}")
        yield from _reach(HostPort(host, port), _reply5(_SUCCEEDED), _failed5)


def _address(kind: int) -> Generator[Step, Any, str | None]:
    """The host of a request, or None where it names none."""
    if kind == _IPV4:
        return str(ipaddress.IPv4Address((yield Exactly(Side.CLIENT, 4))))
    if kind == _IPV6:
        return str(ipaddress.IPv6Address((yield Exactly(Side.CLIENT, 16))))
    if kind == _DOMAIN:
        return host_name((yield Exactly(Side.CLIENT, (yield Exactly(Side.CLIENT, 1))[0])))
    yield from _refuse(_reply5(_NO_ADDRESS_TYPE), f"the SOCKS request has an address of unknown type {kind}")
    return None


def _reply5(code: int) -> bytes:
    """A reply with the address 0.0.0.0:0: from where the server connects is not the client's business."""
    return bytes((5, code, 0, _IPV4)) + bytes(6)


def _failed5(cause: Unreached) -> bytes:
    return _reply5(REPLIES[cause])


# --- versions 4 and 4a ---


def _socks4() -> Script:
    command, *rest = yield Exactly(Side.CLIENT, 7)
    port, packed = int.from_bytes(rest[:2], "big"), bytes(rest[2:])
    yield from _text(USER_LIMIT, "user name")
    host: str | None = str(ipaddress.IPv4Address(packed))
    if packed[:3] == bytes(3) and packed[3]:  # 4a: an impossible address says that a name follows
        host = host_name((yield from _text(USER_LIMIT, "host name")))
    if command != _CONNECT:
        yield from _refuse(_reply4(_REJECTED), _no_such_command(4, command))
    elif host is None:
        yield from _refuse(_reply4(_REJECTED), "the SOCKS request names no host")
    else:
        yield Note(f"SOCKS4 CONNECT {_shown(host, port)}")
        yield from _reach(HostPort(host, port), _reply4(_GRANTED), lambda _: _reply4(_REJECTED))


def _text(limit: int, what: str) -> Generator[Step, Any, bytes]:
    """The bytes up to a NUL."""
    text = bytearray()
    while (byte := (yield Exactly(Side.CLIENT, 1))) != b"\0":
        text += byte
        if len(text) > limit:
            yield from _refuse(
                _reply4(_REJECTED), f"the SOCKS request has a {what} of more than {limit} bytes"
            )
    return bytes(text)


def _reply4(code: int) -> bytes:
    return bytes((0, code)) + bytes(6)


# --- both ---


def host_name(name: bytes) -> str | None:
    """A name or an address that a client sent as text, or None where it cannot be one.

    Zones (`%eth0`) are not taken: which interface a packet leaves by is not the client's business.
    """
    if len(name) <= NAME_LIMIT and _NAME.fullmatch(name):
        return name.decode("ascii")
    try:
        address = ipaddress.IPv6Address(name.decode("ascii"))
    except ValueError:
        return None
    return None if address.scope_id is not None else str(address)


def _reach(target: HostPort, granted: bytes, refusal: Callable[[Unreached], bytes]) -> Script:
    try:
        yield Connect(target)
    except BackendError as error:
        cause = error.cause if isinstance(error, ConnectError) else Unreached.FAILED
        yield Send(Side.CLIENT, refusal(cause))
        raise
    yield Send(Side.CLIENT, granted)


def _refuse(reply: bytes, reason: str) -> Script:
    yield Send(Side.CLIENT, reply)
    raise NegotiationError(reason)


def _no_such_command(version: int, command: int) -> str:
    name = _COMMANDS.get(command, "unknown") if version == 5 or command == _BIND else "unknown"
    return f"the SOCKS{version} command {command} ({name}) is not supported: CONNECT alone is"


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
