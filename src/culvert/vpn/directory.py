"""Who has which address: a table of hosts and networks, by the longest prefix."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

from culvert.config.vpn import Network

T = TypeVar("T")

CACHE_LIMIT = 4096
"""Addresses whose answer is kept: a peer that goes through all there are must not fill the memory."""

_BITS = {4: 32, 6: 128}


class Directory(Generic[T]):
    """Finds what stands for an address, which is given as the 4 or 16 bytes of a packet.

    A table for each length of prefix: to add a network costs the same however many there are, since peers
    come with hundreds, and an address is looked up once for each length that occurs.
    """

    def __init__(self) -> None:
        self._networks: dict[Network, T] = {}
        self._tables: dict[int, dict[int, dict[int, T]]] = {4: {}, 6: {}}
        """By version and length of prefix, the longest first: the network's number and what stands for it."""
        self._starts: dict[int, list[tuple[int, int]]] | None = None
        """By version: the number and the length of each network, in order; None where that has to be made."""
        self._cache: dict[bytes, T | None] = {}

    def __contains__(self, network: Network) -> bool:
        return network in self._networks

    def items(self) -> list[tuple[Network, T]]:
        """All networks with what stands for each."""
        return list(self._networks.items())

    def put(self, network: Network, owner: T) -> None:
        """Let this network be `owner`'s, whosever it was."""
        self._networks[network] = owner
        tables, length = self._tables[network.version], network.prefixlen
        if length not in tables:
            tables[length] = {}
            self._tables[network.version] = dict(sorted(tables.items(), reverse=True))
        self._tables[network.version][length][int(network.network_address)] = owner
        self._changed()

    def remove(self, owner: T) -> list[Network]:
        """Take away all that is this owner's; returns what that was."""
        removed = [network for network, held in self._networks.items() if held is owner]
        for network in removed:
            del self._networks[network]
            table = self._tables[network.version][network.prefixlen]
            del table[int(network.network_address)]
            if not table:
                del self._tables[network.version][network.prefixlen]
        self._changed()
        return removed

    def overlapping(self, network: Network) -> Iterator[tuple[Network, T]]:
        """All networks that share an address with this one, and whose they are; the widest first."""
        version, length = network.version, network.prefixlen
        first, bits = int(network.network_address), _BITS[network.version]
        for known, table in reversed(self._tables[version].items()):
            start = first >> (bits - known) << (bits - known)
            if known < length and start in table:
                yield _network(version, start, known), table[start]
        if self._starts is None:
            self._starts = self._in_order()
        starts = self._starts[version]
        position, end = bisect_left(starts, (first, length)), first + (1 << (bits - length))
        while position < len(starts) and starts[position][0] < end:
            start, known = starts[position]
            yield _network(version, start, known), self._tables[version][known][start]
            position += 1

    def find(self, address: bytes) -> T | None:
        """What stands for this address; None where nothing does."""
        try:
            return self._cache[address]
        except KeyError:
            pass
        found = self._find(address)
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[address] = found
        return found

    def _find(self, address: bytes) -> T | None:
        bits, number = 8 * len(address), int.from_bytes(address, "big")
        for length, table in self._tables[4 if bits == 32 else 6].items():
            start = number >> (bits - length) << (bits - length)
            if start in table:
                return table[start]
        return None

    def _in_order(self) -> dict[int, list[tuple[int, int]]]:
        return {
            version: sorted((start, length) for length, table in tables.items() for start in table)
            for version, tables in self._tables.items()
        }

    def _changed(self) -> None:
        self._cache.clear()
        self._starts = None


def host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Network:
    """The network of one address."""
    return ipaddress.ip_network(address)


def _network(version: int, start: int, length: int) -> Network:
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return kind((start, length))
