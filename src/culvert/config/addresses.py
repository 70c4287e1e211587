"""Addresses as options write them: PORT, HOST:PORT, :::PORT, [::1]:PORT, or the path of a Unix socket."""

from __future__ import annotations

import ipaddress
import re

from culvert.address import Address, HostPort, UnixPath
from culvert.config.values import BadValue, Form

MAX_UNIX_PATH = 107
"""Bytes of a Unix socket's path: sockaddr_un holds 108 with the final NUL (unix(7))."""

MAX_HOST = 253
"""Characters of a host name (RFC 1035, 2.3.4, less the length octets)."""

_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_HOST = re.compile(r"[^\s/:;#@\[\],'\"*?=()]+")


def _port(text: str, lowest: int) -> int | str:
    if text.isascii() and text.isdigit():
        if len(text) > 5 or not lowest <= int(text) <= 65535:
            raise BadValue(f"a port from {lowest} to 65535")
        return int(text)
    if _SERVICE.fullmatch(text) is None:
        raise BadValue()
    return text


def host(text: str) -> str:
    """A host name, an IPv4 address or an IPv6 address, without brackets."""
    if ":" in text:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            raise BadValue("an IPv6 address in front of the last colon") from None
    elif re.fullmatch(r"[0-9]+(\.[0-9]+){3}", text):
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            raise BadValue("an IPv4 address of numbers up to 255, without leading zeros") from None
    elif len(text) > MAX_HOST or _HOST.fullmatch(text) is None:
        raise BadValue()
    return text


def _host_and_port(text: str, lowest: int) -> HostPort:
    where, colon, port = text.rpartition(":")
    if not colon:
        return HostPort(None, _port(port, lowest))
    if where.startswith("[") and where.endswith("]"):
        where = where[1:-1]
        if ":" not in where:
            raise BadValue("an IPv6 address between brackets")
    return HostPort(host(where), _port(port, lowest))


def _address(text: str, lowest: int) -> Address:
    if text.startswith("/"):
        if len(text.encode()) > MAX_UNIX_PATH:
            raise BadValue(f"the path of a Unix socket with at most {MAX_UNIX_PATH} bytes")
        return UnixPath(text)
    return _host_and_port(text, lowest)


def _accept(text: str) -> Address:
    return _address(text.removeprefix("*:"), lowest=0)


def _admin(text: str) -> Address:
    return _address(text, lowest=0)


def _connect(text: str) -> Address:
    return _address(text, lowest=1)


def _host_or_none(text: str) -> str:
    return text and host(text)


def _numeric(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise BadValue() from None
    if "%" in text:
        raise BadValue("an address without a zone")
    return text


ACCEPT = Form("[HOST:]PORT or the path of a Unix socket", _accept)
ADMIN = Form("[HOST:]PORT, where a port alone is of localhost, or the path of a Unix socket", _admin)
CONNECT = Form("[HOST:]PORT or the path of a Unix socket", _connect)
HOST = Form("a host name or an IP address", host)
HOST_OR_NONE = Form("a host name, or nothing", _host_or_none)
IP = Form("an IPv4 or IPv6 address", _numeric)
