"""What a peer tells of itself is held against what others have: one judgement for addresses and for networks.

A route to a network takes its packets away from whoever has them now. What that is, each part collects here,
with words for the log: what the configuration says, what other peers have, where the links themselves go, and
the networks that this machine is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from culvert.config.vpn import IpAddress, Network
from culvert.vpn.directory import Directory, host

SHOWN = 8
"""Networks that one line of the log names: a peer may tell of hundreds."""


@dataclass(frozen=True, slots=True)
class _Claim:
    words: str
    holder: object


class Claims:
    """Networks that somebody has, each with words that say who and what for."""

    def __init__(self) -> None:
        self._directory: Directory[_Claim] = Directory()

    def add(self, network: Network, words: str, holder: object = None) -> None:
        """Say that a network is somebody's; in `words` it is what a refused one runs into."""
        self._directory.put(network, _Claim(words, holder))

    def add_hosts(self, addresses: Iterable[IpAddress], words: str) -> None:
        """The same of addresses, whose words begin with each."""
        for address in addresses:
            self.add(host(address), f"{address} {words}")

    def on(self, network: Network, *but: object) -> str | None:
        """Who has a part of this network, in words; None where nobody has but these holders."""
        for _, claim in self._directory.overlapping(network):
            if claim.holder not in but:
                return claim.words
        return None

    def around(self, network: Network) -> str | None:
        """Who has all of this network, in words: to a wider one, his own would be preferred."""
        for known, claim in self._directory.overlapping(network):
            if known.prefixlen <= network.prefixlen:
                return claim.words
        return None


def within(network: Network, allowed: Iterable[Network]) -> bool:
    """Whether a network lies in one of those that are allowed."""
    return any(
        network.subnet_of(one)  # type: ignore[arg-type]  # of the same version
        for one in allowed
        if one.version == network.version
    )


def listed(things: Iterable[object]) -> str:
    """Addresses or networks as the log has them."""
    return _cut(list(map(str, things))) or "none"


def refusals(refused: Mapping[Network, str]) -> str:
    """What ends a line of the log on a peer that told of networks which are not set, each with its reason."""
    return f"; not accepted: {_cut([f'{one} ({why})' for one, why in refused.items()])}" if refused else ""


def _cut(words: list[str]) -> str:
    beyond = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {beyond} more" if beyond > 0 else "")
