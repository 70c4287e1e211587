"""A VPN as the configuration describes it: part of the model."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


ADDRESS_LIMIT = 8
"""Addresses of one end: there is use for one of each version of IP."""

ROUTE_LIMIT = 256
"""Networks behind one end; they fit into a message."""


class VpnTransport(enum.Enum):
    """What a VPN's packets go through."""

    TLS = "tls"
    DTLS = "dtls"


@dataclass(frozen=True, slots=True)
class VpnClient:
    """One `tunClient`: what the client whose certificate has this name is given, and may send from."""

    name: str
    addresses: tuple[IpAddress, ...]
    routes: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Vpn:
    """A tunnel interface and who is behind it.

    `routes` are the networks behind this end, which the peer is told; `accept` are those within which the
    peer's own may lie. Without `mtu` it is the path's; `keepalive` is in seconds, and None without probes.
    """

    device: str
    addresses: tuple[Interface, ...]
    peers: tuple[IpAddress, ...]
    routes: tuple[Network, ...]
    accept: tuple[Network, ...]
    mtu: int | None
    pools: tuple[Network, ...]
    clients: tuple[VpnClient, ...]
    between_clients: bool
    keepalive: float | None
    offload: bool
    parities: bool
    transport: VpnTransport

    @property
    def datagrams(self) -> bool:
        """Whether it takes datagrams, beside TLS for where they do not get through."""
        return self.transport is VpnTransport.DTLS

    @property
    def own(self) -> frozenset[IpAddress]:
        """The addresses of this end."""
        return frozenset(interface.ip for interface in self.addresses)
