"""How the options of a VPN are written."""

from __future__ import annotations

import ipaddress
import re

from culvert.config.networks import exact_network
from culvert.config.values import BadValue, Form, enumeration, whole
from culvert.config.vpn import Interface, IpAddress, Network, VpnClient, VpnTransport

NAME_LIMIT = 15
"""Bytes of an interface's name (IFNAMSIZ is 16, with a NUL)."""

LOWEST_MTU = 576
"""What every host must take in one packet (RFC 791, 3.1); with IPv6 it is LOWEST_MTU_6."""

LOWEST_MTU_6 = 1280
"""RFC 8200, 5."""


def _device(text: str) -> str:
    unfit = not text or len(text.encode()) > NAME_LIMIT or text in (".", "..")
    # "%" makes the kernel number the interface, and what comes of that is no name that a reload can find.
    if unfit or re.search(r"[\s/:%\x00-\x20\x7f]", text):
        raise BadValue()
    return text


def _address(text: str) -> IpAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadValue() from None
    _check_usable(address)
    return address


def _check_usable(address: IpAddress) -> None:
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local:
        raise BadValue("an address that a host can have in a network", None)
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise BadValue("an address that a host can have in a network", None)


def _interface(text: str) -> Interface:
    if "%" in text:
        raise BadValue()
    address, slash, length = text.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise BadValue()
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise BadValue() from None
    _check_usable(_address(address))
    return interface


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(_network(word.strip(" \t")) for word in text.split(","))


def _network(text: str) -> Network:
    network = exact_network(text)
    # What a peer would not take in a HELLO (vpn.hello).
    if network.is_loopback or network.is_multicast or network.is_link_local:
        raise BadValue("a network to which packets are routed", None)
    return network


def _pool(text: str) -> Network:
    network = exact_network(text)
    if network.num_addresses < 4 or network.is_multicast or network.is_loopback:
        raise BadValue("a network of four addresses or more")
    return network


def _client(text: str) -> VpnClient:
    name, colon, rest = text.partition(":")
    name = name.strip(" \t")
    if not colon or not name or not rest.strip():
        raise BadValue()
    words = [word.strip(" \t") for word in rest.split(",")]
    addresses = tuple(_address(word) for word in words if "/" not in word)
    if not addresses or len({address.version for address in addresses}) < len(addresses):
        raise BadValue("NAME:ADDRESS, with one address at most of IPv4 and one of IPv6")
    return VpnClient(name, addresses, tuple(_network(word) for word in words if "/" in word))


DEVICE = Form(f"the name of a network interface, {NAME_LIMIT} characters at most", _device)
VPN_ADDRESS = Form("an IPv4 or IPv6 address", _address)
VPN_INTERFACE = Form("ADDRESS or ADDRESS/LENGTH", _interface)
VPN_NETWORKS = Form("ADDRESS[/LENGTH], several with commas between", _networks, spaces=True)
POOL = Form("NETWORK/LENGTH", _pool)
VPN_CLIENT = Form("NAME:ADDRESS[,ADDRESS6][,NETWORK/LENGTH...]", _client, spaces=True)
VPN_MTU = whole(LOWEST_MTU, 65535, "a number of bytes")
VPN_TRANSPORT = enumeration(VpnTransport)
