"""Who is let in as far as numbers go: the limits of the daemon and of a service, before anything is spent.

A `Gate` stands in front of each service that has limits, its own or the daemon's; a service without has no
gate, and pays nothing. The life of a connection at its gate:

1. `Gate.admit` right after accept, with the client's address or without. It gives a `Place`, or raises.
2. `Place.attribute` where the client's address is known later: the connection was admitted without one, or
   by that of a proxy, and counts for this one from then on.
3. `Place.enter` where another service takes the client over, by the server name that it asks for.
4. `Place.secured` at the end of the handshake, `Place.release` at the end of the connection.

Where there is no room, 1 to 3 raise a NoRoomError; what a place holds by then, it holds until its release.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

from culvert.config.model import AcceptRate, ConnectionLimits, Service
from culvert.ledger import Addresses, Bucket, Count, Ledger
from culvert.refusals import RefusedError
from culvert.resolve import InternetAddress

_MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins as an IPv6 one (RFC 4291, 2.5.5.2)."""


class NoRoomError(RefusedError):
    """There is no room for a connection. The key is the option that says so, the reason a whole line."""

    def line(self, _service: str, _peer: str) -> str:
        """The reason, as stunnel words it."""
        return self.reason


def network(address: InternetAddress) -> bytes:
    """What clients with this address count as: an IPv4 address, or 64 bits of an IPv6 one.

    So many is what one subscriber gets at least, to choose his addresses from (RFC 6177). The clients of a
    link's own addresses (fe80::/10) are neighbours and not one subscriber: they count one by one.
    """
    host = address[0].partition("%")[0]
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    packed = socket.inet_pton(socket.AF_INET6, host)
    if packed.startswith(_MAPPED):
        return packed[12:]
    link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    return packed if link_local else packed[:8]


class _Number:
    """So many at a time."""

    __slots__ = ("_count", "_error", "_limit", "give")

    def __init__(self, count: Count, limit: int, error: tuple[str, str]) -> None:
        self._count = count
        self._limit = limit
        self._error = error
        self.give = count.give

    def take(self) -> None:
        if not self._count.take(self._limit):
            raise NoRoomError(*self._error)


class _PerAddress:
    """So many at a time of each address."""

    __slots__ = ("_addresses", "_hasher", "_limit", "give")

    def __init__(self, addresses: Addresses, limit: int, name: str) -> None:
        self._addresses = addresses
        self._limit = limit
        self._hasher = addresses.hasher(name)
        self.give = addresses.give

    def take(self, address: InternetAddress) -> bytes:
        """What is to be given back."""
        hasher = self._hasher.copy()
        hasher.update(network(address))
        key = hasher.digest()
        if not self._addresses.take(key, self._limit):
            raise NoRoomError(
                "maxConnectionsPerIP",
                f"Connection rejected: too many clients from {address[0]} (>={self._limit})",
            )
        return key


class _Rate:
    """So many a second."""

    __slots__ = ("_bucket", "_rate")

    def __init__(self, bucket: Bucket, rate: AcceptRate) -> None:
        self._bucket = bucket
        self._rate = rate

    def take(self) -> None:
        if not self._bucket.take(self._rate.per_second, self._rate.burst, time.monotonic()):
            raise NoRoomError(
                "acceptRate",
                f"Connection rejected: more than {self._rate.per_second} new client(s) a second",
            )

    def give(self) -> None:
        self._bucket.give(self._rate.per_second)


class Scope:
    """The limits of the daemon, or of one service, on what all processes have counted under its name."""

    __slots__ = ("handshakes", "per_address", "rate", "total")

    def __init__(self, name: str, limits: ConnectionLimits, ledger: Ledger) -> None:
        self.total: _Number | None = None
        self.handshakes: _Number | None = None
        self.per_address: _PerAddress | None = None
        self.rate: _Rate | None = None
        if (most := limits.connections) is not None:
            text = f"Connection rejected: too many clients (>={most})"
            self.total = _Number(ledger.count(f"connections {name}"), most, ("maxConnections", text))
        if (most := limits.handshakes) is not None:
            text = f"Connection rejected: too many handshakes (>={most})"
            self.handshakes = _Number(ledger.count(f"handshakes {name}"), most, ("maxHandshakes", text))
        if limits.per_ip is not None:
            self.per_address = _PerAddress(ledger.addresses(), limits.per_ip, name)
        if limits.rate is not None:
            self.rate = _Rate(ledger.bucket(name), limits.rate)


class Gate:
    """What a service's connections must pass; `scopes` are the service's own and the daemon's."""

    __slots__ = ("scopes",)

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes

    def admit(self, address: InternetAddress | None) -> Place:
        """A place for a connection from here; without an address it counts for none. Raises NoRoomError."""
        place = Place(address)
        try:
            place.enter(self)
        except NoRoomError:
            place.release()
            raise
        return place


def gates(limits: ConnectionLimits, services: Iterable[Service], ledger: Ledger) -> dict[str, Gate]:
    """The gates of those services that need one, by their names; `limits` are the daemon's."""
    daemon = (Scope("daemon", limits, ledger),) if limits else ()
    found: dict[str, Gate] = {}
    known = list(services)
    for service in known:
        own = (Scope(f"service {service.name}", service.limits, ledger),) if service.limits else ()
        if own or daemon:
            found[service.name] = Gate(*own, *daemon)
    for service in known:
        if service.name in found:  # who hands clients on to it gives them a place to enter it with
            for name in service.server_names:
                found.setdefault(name.primary, Gate())
    return found


class Place:
    """What one connection holds of the limits that it is under."""

    __slots__ = ("_address", "_handshakes", "_keys", "_scopes", "_totals")

    def __init__(self, address: InternetAddress | None) -> None:
        self._address = address
        self._scopes: list[Scope] = []
        self._totals: list[_Number] = []
        self._handshakes: list[_Number] = []
        self._keys: list[tuple[_PerAddress, bytes]] = []

    def enter(self, gate: Gate) -> None:
        """Take what this gate asks for and those before it did not. Raises NoRoomError."""
        fresh = [scope for scope in gate.scopes if scope not in self._scopes]
        for scope in fresh:
            self._scopes.append(scope)
            if scope.total is not None:
                scope.total.take()
                self._totals.append(scope.total)
            if scope.handshakes is not None:
                scope.handshakes.take()
                self._handshakes.append(scope.handshakes)
            self._count_address(scope)
        _spend([scope.rate for scope in fresh if scope.rate is not None])

    def attribute(self, address: InternetAddress) -> None:
        """Count for this address, and for no other one any more. Raises NoRoomError."""
        self._give_keys()
        self._address = address
        for scope in self._scopes:
            self._count_address(scope)

    def secured(self) -> None:
        """The handshake has ended: its place is free for another one."""
        for quota in self._handshakes:
            quota.give()
        self._handshakes.clear()

    def release(self, _: object = None) -> None:
        """The connection has ended. It can be the callback of its task."""
        self.secured()
        for quota in self._totals:
            quota.give()
        self._totals.clear()
        self._give_keys()

    def _count_address(self, scope: Scope) -> None:
        if scope.per_address is not None and self._address is not None:
            self._keys.append((scope.per_address, scope.per_address.take(self._address)))

    def _give_keys(self) -> None:
        for quota, key in self._keys:
            quota.give(key)
        self._keys.clear()


def _spend(rates: list[_Rate]) -> None:
    """Take of each rate, or of none. Raises NoRoomError."""
    for index, rate in enumerate(rates):
        try:
            rate.take()
        except NoRoomError:
            for spent in rates[:index]:
                spent.give()
            raise
