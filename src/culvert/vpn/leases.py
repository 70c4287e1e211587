"""Who among a server's clients gets which addresses."""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from culvert.config.vpn import IpAddress, Network, Vpn
from culvert.vpn.hello import Hello

H = TypeVar("H", bound=Hashable)


class RefusedByServerError(Exception):
    """A client gets no address; the text, which it is told as well, says why."""


@dataclass(frozen=True, slots=True)
class Grant(Generic[H]):
    """What a client gets: its addresses, and the networks that the configuration says are behind it.

    `replaced` is whoever had the addresses until now: `renewed` says that it is the same client by the word
    of its lease, over an older link. `lease` is the word by which the client takes its place again. `lacking`
    are the versions of IP of which there is a pool and no address for this client.
    """

    addresses: tuple[IpAddress, ...]
    routes: tuple[Network, ...]
    replaced: H | None
    lease: str
    renewed: bool
    lacking: tuple[int, ...]


class Leases(Generic[H]):
    """The addresses that are given out, each to a holder.

    One name may be that of several hosts, but never has more of a pool than is left for all others: a
    certificate that was stolen, or serves for too many, is not to lock them out.
    """

    def __init__(self, vpn: Vpn) -> None:
        self._vpn = vpn
        self._clients = {client.name.lower(): client for client in vpn.clients}
        self._kept = vpn.own | {address for client in vpn.clients for address in client.addresses}
        self._held: dict[IpAddress, H] = {}
        self._by_lease: dict[str, H] = {}
        self._names: dict[H, str] = {}
        self._cursors = dict.fromkeys(vpn.pools, 0)

    def grant(self, holder: H, names: Iterable[str], hello: Hello) -> Grant[H]:
        """The addresses of a client whose certificate has these names. Raises RefusedByServerError."""
        known = [name.lower() for name in names]
        named = next((found for name in known if (found := self._clients.get(name))), None)
        name = known[0] if known else ""
        replaced: H | None = None
        routes: tuple[Network, ...] = ()
        if self._vpn.peers:
            addresses = self._vpn.peers
        elif named is not None:
            addresses, routes = named.addresses, named.routes
        elif self._vpn.pools:
            replaced = self._by_lease.get(hello.lease) if hello.lease else None
            had = self._addresses_of(replaced) if replaced is not None else ()
            addresses = had or self._from_pools(hello, name)
        else:
            raise RefusedByServerError("no address is configured for a client of this name")
        if hello.fixed and set(hello.own) != set(addresses):
            wanted, given = _listed(hello.own), _listed(addresses)
            raise RefusedByServerError(f"this client would have {wanted}, and its address here is {given}")
        replaced = replaced or next((self._held[one] for one in addresses if one in self._held), None)
        renewed = replaced is not None and self._by_lease.get(hello.lease) == replaced
        lease = secrets.token_hex(16)
        if replaced is not None:
            self.release(replaced)
        self._held.update(dict.fromkeys(addresses, holder))
        self._by_lease[lease] = holder
        self._names[holder] = name
        pooled = () if self._vpn.peers or named is not None else self._vpn.pools
        lacking = {pool.version for pool in pooled} - {address.version for address in addresses}
        return Grant(addresses, routes, replaced, lease, renewed, tuple(sorted(lacking)))

    def release(self, holder: H) -> None:
        """Take back what this one has, if it still has anything."""
        self._held = {address: held for address, held in self._held.items() if held != holder}
        self._by_lease = {lease: held for lease, held in self._by_lease.items() if held != holder}
        self._names.pop(holder, None)

    def _addresses_of(self, holder: H) -> tuple[IpAddress, ...]:
        return tuple(address for address, held in self._held.items() if held == holder)

    def _from_pools(self, hello: Hello, name: str) -> tuple[IpAddress, ...]:
        """An address of each version of IP that there is a pool for."""
        found: dict[int, IpAddress] = {}
        for pool in self._vpn.pools:
            if pool.version in found or not self._has_share(pool, name):
                continue
            wish = next((one for one in hello.own if one in pool and self._is_free(one, pool)), None)
            address = wish or (None if hello.fixed else self._next(pool))
            if address is not None:
                found[pool.version] = address
        if not found and not hello.fixed:
            has_its = any(held == name for held in self._names.values()) if name else False
            raise RefusedByServerError(
                "all addresses are given out" + (", or as many to its name as are left" if has_its else "")
            )
        return tuple(found.values())

    def _has_share(self, pool: Network, name: str) -> bool:
        """Whether this name has fewer addresses of a pool than are left of it."""
        if not name:
            return True
        given = [holder for address, holder in self._held.items() if address in pool]
        own = sum(1 for holder in given if self._names.get(holder) == name)
        edges = 2 if pool.version == 4 else 1
        left = pool.num_addresses - edges - len(given) - sum(1 for one in self._kept if one in pool)
        return own == 0 or own < left

    def _is_free(self, address: IpAddress, pool: Network) -> bool:
        at_the_edge = address == pool.network_address or (
            pool.version == 4 and address == pool.broadcast_address
        )
        return not at_the_edge and address not in self._held and address not in self._kept

    def _next(self, pool: Network) -> IpAddress | None:
        """The free address that comes next: one that has just become free is not given again at once."""
        cursor, size = self._cursors[pool], pool.num_addresses
        for step in range(1, min(size, len(self._held) + len(self._kept) + 4) + 1):
            position = (cursor + step) % size
            address = pool[position]
            if self._is_free(address, pool):
                self._cursors[pool] = position
                return address
        return None


def _listed(addresses: Iterable[IpAddress]) -> str:
    return ", ".join(map(str, addresses)) or "none"
