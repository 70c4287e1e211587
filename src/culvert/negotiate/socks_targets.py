"""Where the clients of a SOCKS server may go.

Judged is an address, after the name was resolved: a name says nothing of where it leads. Without a rule every
address may be reached that belongs to somebody else; with `socksAllow` those that a rule permits. In both
cases loopback, link-local and multicast addresses and this machine's own ones need a rule that means them:
one with a network that has nothing else in it, or with the name itself. Of names only localhost means the
loopback (RFC 6761, 6.3), and none a link-local address: whoever owns a name could lead it there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from culvert.address import IpAddress, unwrapped
from culvert.config.model import SocksKind, SocksRule

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL: tuple[tuple[str, IpNetwork], ...] = tuple(
    (name, ipaddress.ip_network(network))
    for name, network in (
        ("the IPv4 loopback", "127.0.0.0/8"),
        ("the IPv6 loopback", "::1/128"),
        ("the unspecified IPv4 address", "0.0.0.0/8"),  # Linux takes 0.0.0.0 for loopback
        ("the unspecified IPv6 address", "::/128"),
        ("an IPv4 link-local address", "169.254.0.0/16"),  # cloud metadata has its credentials there
        ("an IPv6 link-local address", "fe80::/10"),
        ("an IPv4 multicast address", "224.0.0.0/4"),
        ("an IPv6 multicast address", "ff00::/8"),
        ("the IPv4 broadcast address", "255.255.255.255/32"),
    )
)


class SocksTargets:
    """The rules of one service."""

    def __init__(self, rules: Sequence[SocksRule]) -> None:
        self._rules = rules
        self._networks = {
            rule.value: ipaddress.ip_network(rule.value) for rule in rules if rule.kind is SocksKind.NETWORK
        }

    def refusal_of_name(self, host: str, port: int) -> str | None:
        """Why this host is refused whatever its address is: a name that is looked up tells its owner."""
        if not self._rules or any(
            rule.kind is SocksKind.NETWORK or _covers(rule, host)
            for rule in self._rules
            if rule.has_port(port)
        ):
            return None
        return _unpermitted(host, port)

    def refusal(self, host: str, address: str, port: int, *, own: bool) -> str | None:
        """Why a client that asked for `host` may not reach this address of it; None where it may.

        `own` says that the address is one of this machine's.
        """
        where = unwrapped(address)
        special = _special(where)
        what = special or ("an address of this machine" if own else None)
        rules = list(self._permitting(host, where, port))
        if self._rules and not rules:
            return _unpermitted(host, port)
        if what is None or any(self._means(rule, where, named=special is None) for rule in rules):
            return None
        return f"SOCKS connection to {what} rejected"

    def _permitting(self, host: str, where: IpAddress, port: int) -> Iterator[SocksRule]:
        for rule in self._rules:
            if rule.has_port(port) and (_covers(rule, host) or self._contains(rule, where)):
                yield rule

    def _contains(self, rule: SocksRule, where: IpAddress) -> bool:
        network = self._networks.get(rule.value)
        return rule.kind is SocksKind.NETWORK and network is not None and where in network

    def _means(self, rule: SocksRule, where: IpAddress, *, named: bool) -> bool:
        """Whether the operator had this very address in mind, or the special network that it is in.

        `named` says that the name of a host is enough for that.
        """
        if rule.kind is SocksKind.HOST:
            return named or (where.is_loopback and _is_localhost(rule.value))
        network = self._networks.get(rule.value) if rule.kind is SocksKind.NETWORK else None
        if network is None:
            return False
        return network.num_addresses == 1 or any(
            where in special and _within(network, special) for _, special in _SPECIAL
        )


def _unpermitted(host: str, port: int) -> str:
    return f"SOCKS connection to {host} port {port} rejected: no socksAllow permits it"


def _special(where: IpAddress) -> str | None:
    return next((name for name, network in _SPECIAL if where in network), None)


def _is_localhost(name: str) -> bool:
    return f".{name}".endswith(".localhost")


def _within(network: IpNetwork, other: IpNetwork) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _covers(rule: SocksRule, host: str) -> bool:
    name = host.lower().rstrip(".")
    match rule.kind:
        case SocksKind.ANY:
            return True
        case SocksKind.HOST:
            return name == rule.value
        case SocksKind.SUFFIX:
            return name.endswith(f".{rule.value}")
        case SocksKind.NETWORK:
            return False
