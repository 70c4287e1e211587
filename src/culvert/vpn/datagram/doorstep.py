"""Who stands at a server's port and is no peer yet: each has shown its cookie, and none who it is."""

from __future__ import annotations

from collections import Counter

from culvert.admission import network
from culvert.vpn.datagram.link import DatagramLink
from culvert.vpn.datagram.udp import Way

PENDING_LIMIT = 256
"""Handshakes that are under way at once: with a valid cookie each, or they would not be."""

PENDING_SHARE = 64
"""Of these, as many as one network may have: an address, or 64 bits of IPv6."""


class Doorstep:
    """The handshakes under way. Where there are too many, the oldest makes room: one that is answered takes
    no more than two round trips, so it is one whose client says nothing.
    """

    def __init__(self) -> None:
        self._links: dict[tuple[bytes, Way], tuple[DatagramLink, bytes]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def find(self, ident: bytes, way: Way) -> DatagramLink | None:
        """The link of who has drawn this and comes from there."""
        found = self._links.get((ident, way))
        return found[0] if found is not None else None

    def links(self) -> list[DatagramLink]:
        """All of them."""
        return [link for link, _ in self._links.values()]

    def add(self, link: DatagramLink) -> DatagramLink | None:
        """Another one; returns the one that must make room for it."""
        origin = network(link.way.peer)
        numbers = Counter(one for _, one in self._links.values())
        crowded = None
        if numbers[origin] >= PENDING_SHARE:
            crowded = origin
        elif len(self._links) >= PENDING_LIMIT:
            crowded = max(numbers, key=lambda one: numbers[one])
        oldest = next((one for one, of in self._links.values() if of == crowded), None)
        if oldest is not None:
            self.remove(oldest)
        self._links[link.ident, link.way] = link, origin
        return oldest

    def remove(self, link: DatagramLink) -> None:
        """It is a peer's now, or over."""
        key = link.ident, link.way
        found = self._links.get(key)
        if found is not None and found[0] is link:
            del self._links[key]
