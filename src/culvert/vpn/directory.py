"""Who has which address: a table of hosts and networks, by the longest prefix."""

from __future__ import annotations

import ipaddress
from typing import Generic, TypeVar

from culvert.config.vpn import Network

T = TypeVar("T")

CACHE_LIMIT = 4096
"""Addresses whose answer is kept: a peer that goes through all there are must not fill the memory."""


class Directory(Generic[T]):
    """Finds what stands for an address, which is given as the 4 or 16 bytes of a packet."""

    def __init__(self) -> None:
        self._networks: dict[Network, T] = {}
        self._ordered: dict[int, list[tuple[int, int, T]]] = {4: [], 16: []}
        self._cache: dict[bytes, T | None] = {}

    def __contains__(self, network: Network) -> bool:
        return network in self._networks

    def items(self) -> list[tuple[Network, T]]:
        """All networks with what stands for each."""
        return list(self._networks.items())

    def put(self, network: Network, owner: T) -> None:
        """Let this network be `owner`'s, whosever it was."""
        self._networks[network] = owner
        self._arrange()

    def remove(self, owner: T) -> list[Network]:
        """Take away all that is this owner's; returns what that was."""
        removed = [network for network, held in self._networks.items() if held is owner]
        for network in removed:
            del self._networks[network]
        self._arrange()
        return removed

    def overlapping(self, network: Network) -> T | None:
        """Somebody who has a part of this network; None where nobody has."""
        for known, owner in self._networks.items():
            if owner is not None and known.version == network.version and known.overlaps(network):
                return owner
        return None

    def find(self, address: bytes) -> T | None:
        """What stands for this address; None where nothing does."""
        try:
            return self._cache[address]
        except KeyError:
            pass
        number = int.from_bytes(address, "big")
        found = next(
            (owner for mask, net, owner in self._ordered[len(address)] if number & mask == net), None
        )
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[address] = found
        return found

    def _arrange(self) -> None:
        self._cache.clear()
        longest_first = sorted(self._networks.items(), key=lambda item: -item[0].prefixlen)
        for size, version in ((4, 4), (16, 6)):
            self._ordered[size] = [
                (int(network.netmask), int(network.network_address), owner)
                for network, owner in longest_first
                if network.version == version
            ]


def host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Network:
    """The network of one address."""
    return ipaddress.ip_network(address)
