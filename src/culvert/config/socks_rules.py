"""`socksAllow = HOST|*.SUFFIX|NETWORK|*[:PORT|:PORT-PORT]`: to where the clients of a SOCKS server may go."""

from __future__ import annotations

import ipaddress
import re

from culvert.config.addresses import MAX_HOST
from culvert.config.model import SocksKind, SocksRule
from culvert.config.values import BadValue, Form

_PORTS = re.compile(r"(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_ALL_PORTS = (0, 65535)


def _rule(text: str) -> SocksRule:
    if re.search(r"[, \t]", text):
        raise BadValue("one target", "a line of its own for each")
    where, ports = _split(text)
    if where == "*":
        return SocksRule(SocksKind.ANY, "", ports, text)
    network = _network(where)
    if network is not None:
        return SocksRule(SocksKind.NETWORK, network, ports, text)
    if where.startswith("*."):
        return SocksRule(SocksKind.SUFFIX, _name(where.removeprefix("*.")), ports, text)
    return SocksRule(SocksKind.HOST, _name(where), ports, text)


def _split(text: str) -> tuple[str, tuple[int, int]]:
    """The target and the ports. An IPv6 address with a port stands between brackets, its length within."""
    if text.startswith("["):
        where, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in where or (rest and not rest.startswith(":")):
            raise BadValue("an IPv6 address or network between brackets, and behind them nothing or :PORT")
        return where, _ports(rest[1:]) if rest else _ALL_PORTS
    if text.count(":") > 1:
        return text, _ALL_PORTS
    where, colon, rest = text.partition(":")
    return where, _ports(rest) if colon else _ALL_PORTS


def _ports(text: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(text)
    if match is None:
        raise BadValue("a port from 1 to 65535 behind the colon, or PORT-PORT")
    first = int(match["first"])
    last = int(match["last"] or first)
    if not 1 <= first <= last <= 65535:
        raise BadValue("a port from 1 to 65535 behind the colon, or PORT-PORT with the lower one first")
    return first, last


def _network(text: str) -> str | None:
    """The network in the form in which it is compared, or None for what is no address."""
    address, slash, length = text.partition("/")
    try:
        first = ipaddress.ip_address(address)
    except ValueError:
        if slash or ":" in text:
            raise BadValue("an address in front of /LENGTH") from None
        return None
    if "%" in text:
        raise BadValue("an address without a zone")
    if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None:
        raise BadValue("an IPv4 address in its own form", f'did you mean "{first.ipv4_mapped}"?')
    if slash and not (length.isascii() and length.isdigit()):
        raise BadValue("the number of a network's bits behind /")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadValue(f"a length up to {first.max_prefixlen} behind /") from None
    if network.network_address != first:
        raise BadValue("a network in which every bit behind LENGTH is 0", f'did you mean "{network}"?')
    return str(network)


def _name(text: str) -> str:
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadValue()
    if labels[-1].isdigit():
        raise BadValue("an IPv4 address of four numbers up to 255, or a host name")
    return name


SOCKS_RULE = Form("HOST, *.SUFFIX, ADDRESS[/LENGTH] or *, with :PORT or :PORT-PORT behind it", _rule)
