"""Networks as options write them: ADDRESS, ADDRESS/LENGTH or unix, several of them with commas between."""

from __future__ import annotations

import ipaddress

from culvert.config.model import Network, Sources
from culvert.config.values import BadValue, Form

UNIX = "unix"
"""Stands for every client of a Unix socket, which has no address."""

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def exact_network(text: str) -> Network:
    """A network by its first address, or a single address, as it is written. Raises BadValue."""
    address, slash, length = text.partition("/")
    if "%" in text or (slash and not (length.isascii() and length.isdigit())):
        raise BadValue()
    try:
        first = ipaddress.ip_address(address)
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadValue() from None
    if found.network_address != first:
        raise BadValue("a network in which every bit behind LENGTH is 0", f'did you mean "{found}"?')
    return found


def network(text: str) -> Network:
    """The same; one of mapped IPv4 addresses as what it is (RFC 4291, 2.5.5.2)."""
    found = exact_network(text)
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        mapped = found.network_address.packed[-4:]
        return ipaddress.IPv4Network((mapped, found.prefixlen - _MAPPED.prefixlen))
    return found


def _networks(text: str) -> Sources:
    words = [word.strip(" \t") for word in text.split(",")]
    named = tuple(network(word) for word in words if word.lower() != UNIX)
    return Sources(named, unix=len(named) < len(words))


def _proxies(text: str) -> Sources:
    return Sources(tuple(network(word.strip(" \t")) for word in text.split(",")))


NETWORKS = Form("ADDRESS[/LENGTH] or unix, several with commas between", _networks)
PROXIES = Form("ADDRESS[/LENGTH], several with commas between", _proxies)
