"""The first message each way: who speaks, what it asks for, and what it grants.

It is JSON, an object, of at most MESSAGE_LIMIT bytes. Names that are not known are passed over, so that a
later version may say more; `version` counts up where an older one could not do with what it knows.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any

from culvert.config.vpn import ADDRESS_LIMIT, ROUTE_LIMIT, IpAddress, Network
from culvert.vpn.transport import MESSAGE_LIMIT, FrameError

VERSION = 1

LEASE_LIMIT = 64
"""Characters of a lease: 32 are given."""

LARGEST_MTU = 65535
SMALLEST_MTU = 576


@dataclass(frozen=True, slots=True)
class Hello:
    """What one end says of itself.

    `own` are its addresses in the VPN: those that a client has or would like, those that a server has.
    `yours` is what a server grants. `routes` are the networks behind it. `mtu` is the longest packet that it
    wants to be sent. `udp` says that it takes UDP that is still to be segmented. `lease` is what a server has
    given to a client, by which that one takes its own place again over a new link.
    """

    own: tuple[IpAddress, ...] = ()
    yours: tuple[IpAddress, ...] = ()
    routes: tuple[Network, ...] = ()
    mtu: int = 1500
    udp: bool = False
    lease: str = ""
    fixed: bool = False
    """Of a client: it will have its `own` addresses and no others."""

    def encode(self) -> bytes:
        """As it goes over the wire. Raises ValueError where that would be too long."""
        body = json.dumps(
            {
                "version": VERSION,
                "own": [str(one) for one in self.own],
                "yours": [str(one) for one in self.yours],
                "routes": [str(one) for one in self.routes],
                "mtu": self.mtu,
                "udp": self.udp,
                "lease": self.lease,
                "fixed": self.fixed,
            },
            separators=(",", ":"),
        ).encode("ascii")
        if len(body) > MESSAGE_LIMIT or len(self.routes) > ROUTE_LIMIT:
            raise ValueError(f"{len(self.routes)} networks are too many to tell a peer of")
        return body


def decode(body: bytes) -> Hello:
    """What a peer says of itself. Raises FrameError."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise FrameError("a HELLO that is no JSON") from None
    if not isinstance(found, dict):
        raise FrameError("a HELLO that is no object")
    version = found.get("version")
    if version != VERSION or isinstance(version, bool):
        raise FrameError(f"a HELLO of version {str(version)[:16]!r}, this end speaks {VERSION}")
    return Hello(
        own=tuple(_address(one) for one in _strings(found, "own", ADDRESS_LIMIT)),
        yours=tuple(_address(one) for one in _strings(found, "yours", ADDRESS_LIMIT)),
        routes=tuple(_network(one) for one in _strings(found, "routes", ROUTE_LIMIT)),
        mtu=_mtu(found),
        udp=_truth(found, "udp"),
        lease=_lease(found),
        fixed=_truth(found, "fixed"),
    )


def _strings(found: dict[str, Any], name: str, most: int) -> list[str]:
    value = found.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(one, str) for one in value):
        raise FrameError(f'a HELLO whose "{name}" is no list of at most {most} texts')
    return value


def _address(text: str) -> IpAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise FrameError("a HELLO with an address that is none") from None
    unusable = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    if unusable or getattr(address, "scope_id", None) or getattr(address, "ipv4_mapped", None):
        raise FrameError(f"a HELLO with the address {address}, which no host can have in a VPN")
    return address


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise FrameError("a HELLO with a network that is none") from None
    if network.is_loopback or network.is_multicast or network.is_link_local:
        raise FrameError(f"a HELLO with the network {network}, to which nothing is routed")
    return network


def _mtu(found: dict[str, Any]) -> int:
    value = found.get("mtu")
    if isinstance(value, bool) or not isinstance(value, int) or not SMALLEST_MTU <= value <= LARGEST_MTU:
        raise FrameError(f'a HELLO whose "mtu" is no number from {SMALLEST_MTU} to {LARGEST_MTU}')
    return value


def _truth(found: dict[str, Any], name: str) -> bool:
    value = found.get(name)
    if not isinstance(value, bool):
        raise FrameError(f'a HELLO whose "{name}" is neither true nor false')
    return value


def _lease(found: dict[str, Any]) -> str:
    value = found.get("lease")
    if not isinstance(value, str) or len(value) > LEASE_LIMIT or not value.isascii():
        raise FrameError('a HELLO whose "lease" is no short text')
    return value
