"""Addresses and networks of a VPN, held against each other, and against those of other VPNs of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from culvert.config.derived import vpn
from culvert.config.draft import Draft, Entry
from culvert.config.findings import Findings
from culvert.config.vpn import ADDRESS_LIMIT, ROUTE_LIMIT, Network, Vpn, VpnClient
from culvert.config.vpn_values import LOWEST_MTU_6


def check_networks(draft: Draft, findings: Findings, found: Vpn) -> None:
    """Report what cannot go together in one VPN."""
    _check_addresses(draft, findings, found)
    _check_clients(draft, findings, found)
    _check_number(draft, findings, found)
    _check_sides(draft, findings, found)
    if not draft.value("client"):
        _check_pools(draft, findings, found)


def _check_clients(draft: Draft, findings: Findings, found: Vpn) -> None:
    """Report addresses, names and networks that two clients have."""
    given: dict[object, str] = dict.fromkeys(found.own, "tunAddress")
    known: list[VpnClient] = []
    for entry in draft.entries("tunClient"):
        client: VpnClient = entry.value
        taken = next((one for one in client.addresses if one in given), None)
        shared = [(one, route, beyond) for one in known for route in client.routes for beyond in one.routes]
        beside = next(((one, route) for one, route, beyond in shared if _overlap(route, beyond)), None)
        if taken is not None:
            reason = f'"tunClient" gives {client.name} the address {taken}, which "{given[taken]}" has'
        elif any(one.name.lower() == client.name.lower() for one in known):
            reason = f'"tunClient" names {client.name} twice'
        elif beside is not None:
            reason = (
                f'"tunClient" has {beside[1]} behind {client.name}, and {beside[0].name} has a part of it'
            )
        else:
            reason = None
        if reason is not None:
            findings.error(reason, entry.location, draft.name)
        given |= dict.fromkeys(client.addresses, f"tunClient = {client.name}")
        known.append(client)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _check_addresses(draft: Draft, findings: Findings, found: Vpn) -> None:
    for option, addresses in (
        ("tunPeer", found.peers),
        ("tunAddress", tuple(one.ip for one in found.addresses)),
    ):
        if len(set(addresses)) < len(addresses):
            findings.error(f'"{option}" has an address twice', draft.where(option), draft.name)
    versions = {address.version for address in found.own}
    for peer in found.peers:
        if versions and peer.version not in versions:
            findings.error(
                f'"tunPeer = {peer}" has no "tunAddress" of its version of IP on this side',
                draft.where("tunPeer"),
                draft.name,
            )
    six = any(one.version == 6 for one in (*found.own, *found.pools, *found.peers))
    if six and found.mtu is not None and found.mtu < LOWEST_MTU_6:
        findings.error(
            f'"tunMTU = {found.mtu}" is below {LOWEST_MTU_6}, the least that IPv6 asks for',
            draft.where("tunMTU"),
            draft.name,
        )


def _check_number(draft: Draft, findings: Findings, found: Vpn) -> None:
    """What this end tells of must go into its first message, which the other end counts too."""
    told = dict.fromkeys((*found.routes, *(found.pools if found.between_clients else ())))
    if len(told) > ROUTE_LIMIT:
        findings.error(
            f"{len(told)} networks are too many to tell a peer of: {ROUTE_LIMIT} is the most"
            + (', with those of "tunPool"' if found.between_clients else ""),
            draft.where("tunRoute", "tunPool"),
            draft.name,
            "join neighbouring networks into wider ones",
        )
    for option, number in (("tunAddress", len(found.addresses)), ("tunPeer", len(found.peers))):
        if number > ADDRESS_LIMIT:
            findings.error(
                f'"{option}" stands {number} times: {ADDRESS_LIMIT} is the most',
                draft.where(option),
                draft.name,
            )


def _check_sides(draft: Draft, findings: Findings, found: Vpn) -> None:
    """Report what would be on both sides of the tunnel. A wider "tunRoute" has all but what clients have."""
    beyond = [(network, "tunPool gives addresses of it") for network in found.pools]
    for client in found.clients:
        beyond += [(network, f"tunClient has it behind {client.name}") for network in client.routes]
    for entry, route in _networks_of(draft, "tunRoute"):
        reason = next((why for network, why in beyond if _inside(route, network)), None)
        if reason is not None:
            findings.error(
                f'"tunRoute = {route}" cannot be behind this end: {reason}', entry.location, draft.name
            )


def _check_pools(draft: Draft, findings: Findings, found: Vpn) -> None:
    versions = {address.version for address in found.own}
    for entry in draft.entries("tunPool"):
        pool: Network = entry.value
        if versions and pool.version not in versions:
            findings.error(
                f'"tunPool = {pool}" has no "tunAddress" of its version of IP on this side',
                entry.location,
                draft.name,
            )
    for entry in draft.entries("tunClient"):
        beside = ((route, pool) for route in entry.value.routes for pool in found.pools)
        if (pair := next((pair for pair in beside if _overlap(*pair)), None)) is not None:
            findings.error(
                f'"tunClient" has {pair[0]} behind {entry.value.name}, and "tunPool" gives addresses of '
                f"{pair[1]} to others",
                entry.location,
                draft.name,
            )
    for entry, network in _networks_of(draft, "tunAccept"):
        if any(_overlap(network, pool) for pool in found.pools):
            findings.warning(
                f'"tunAccept = {network}" takes in a "tunPool", of which nothing is accepted: '
                "name the networks that clients have behind them",
                entry.location,
                draft.name,
            )


def check_between(drafts: Sequence[Draft], findings: Findings) -> None:
    """Report addresses that two VPNs would have, and those that two would give."""
    seen: list[tuple[Draft, Entry, Network]] = []
    for draft in drafts:
        own = list(_claimed(draft)) if vpn(draft) is not None else []
        for entry, network in own:
            first = next(((other, at) for other, at, known in seen if _overlap(network, known)), None)
            if first is not None:
                findings.error(
                    f"service [{first[0].name}] has a part of {network} already ({first[1].location})",
                    entry.location,
                    draft.name,
                )
        seen += [(draft, entry, network) for entry, network in own]


def _claimed(draft: Draft) -> Iterator[tuple[Entry, Network]]:
    """What only one VPN of a machine can have: an end's own addresses, and what it gives to clients."""
    for entry in draft.entries("tunAddress"):
        yield entry, ip_network(entry.value.ip)
    for entry in draft.entries("tunPool"):
        yield entry, entry.value
    for entry in draft.entries("tunClient"):
        for network in (*map(ip_network, entry.value.addresses), *entry.value.routes):
            yield entry, network


def _networks_of(draft: Draft, option: str) -> Iterator[tuple[Entry, Network]]:
    for entry in draft.entries(option):
        for network in entry.value:
            yield entry, network


def _inside(network: Network, other: Network) -> bool:
    return _overlap(network, other) and network.prefixlen >= other.prefixlen
