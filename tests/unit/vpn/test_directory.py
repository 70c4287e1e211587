"""Who has which address."""

from __future__ import annotations

import ipaddress
import time

from hypothesis import given
from hypothesis import strategies as st

from culvert.vpn.directory import CACHE_LIMIT, Directory, host


def packed(text: str) -> bytes:
    """An address as it stands in a packet."""
    return ipaddress.ip_address(text).packed


def test_the_longest_prefix_counts() -> None:
    directory: Directory[str] = Directory()
    directory.put(ipaddress.ip_network("0.0.0.0/0"), "everybody")
    directory.put(ipaddress.ip_network("10.9.0.0/24"), "office")
    directory.put(host(ipaddress.ip_address("10.9.0.7")), "desk")
    assert [directory.find(packed(one)) for one in ("10.9.0.7", "10.9.0.8", "10.8.0.1")] == [
        "desk",
        "office",
        "everybody",
    ]
    assert directory.find(packed("fd09::7")) is None


def test_what_changes_is_seen_at_once() -> None:
    directory: Directory[str] = Directory()
    network = ipaddress.ip_network("fd09::/64")
    directory.put(network, "old")
    assert directory.find(packed("fd09::7")) == "old"
    directory.put(network, "new")
    assert directory.find(packed("fd09::7")) == "new"
    assert directory.remove("old") == []
    assert directory.remove("new") == [network]
    assert directory.find(packed("fd09::7")) is None


def overlapping(directory: Directory[str], network: str) -> list[str]:
    """Who has a part of a network."""
    return [owner for _, owner in directory.overlapping(ipaddress.ip_network(network))]


def test_everybody_who_has_a_part_of_a_network_is_found() -> None:
    directory: Directory[str] = Directory()
    directory.put(ipaddress.ip_network("10.9.0.0/24"), "office")
    directory.put(ipaddress.ip_network("10.9.0.8/29"), "floor")
    directory.put(ipaddress.ip_network("10.10.0.0/16"), "plant")
    assert overlapping(directory, "10.0.0.0/8") == ["office", "floor", "plant"]
    assert overlapping(directory, "10.9.0.0/24") == ["office", "floor"]
    assert overlapping(directory, "10.9.0.9/32") == ["office", "floor"]
    assert overlapping(directory, "10.9.0.4/32") == ["office"]
    assert overlapping(directory, "10.9.1.0/24") == []
    assert overlapping(directory, "fd00::/8") == []


def test_what_is_nobody_s_hides_what_is_behind_it() -> None:
    directory: Directory[str | None] = Directory()
    directory.put(ipaddress.ip_network("224.0.0.0/4"), None)
    directory.put(ipaddress.ip_network("0.0.0.0/0"), "everybody")
    assert directory.find(packed("224.0.0.1")) is None


def test_thousands_of_networks_are_put_and_held_against_each_other_within_a_moment() -> None:
    """A client comes with hundreds, and everybody waits meanwhile."""
    directory: Directory[int] = Directory()
    networks = [ipaddress.ip_network((number << 12, 20)) for number in range(20_000)]
    began = time.process_time()
    for number, network in enumerate(networks):
        directory.put(network, number)
    assert all([owner for _, owner in directory.overlapping(one)] for one in networks[:256])
    assert time.process_time() - began < 2


def test_what_is_kept_is_bounded() -> None:
    directory: Directory[str] = Directory()
    for number in range(CACHE_LIMIT * 2):
        directory.find(number.to_bytes(4, "big"))
    assert len(directory._cache) <= CACHE_LIMIT


NETWORKS = st.builds(
    lambda number, length: ipaddress.ip_network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(networks=st.lists(NETWORKS, max_size=12), address=st.integers(0, 2**32 - 1))
def test_it_is_as_a_look_at_every_network(networks: list[ipaddress.IPv4Network], address: int) -> None:
    directory: Directory[str] = Directory()
    for network in networks:
        directory.put(network, str(network))
    holding = [network for network in networks if ipaddress.IPv4Address(address) in network]
    best = max(holding, key=lambda network: network.prefixlen, default=None)
    assert directory.find(address.to_bytes(4, "big")) == (None if best is None else str(best))


@given(networks=st.lists(NETWORKS, max_size=12), wanted=NETWORKS)
def test_overlaps_are_as_a_look_at_every_network(
    networks: list[ipaddress.IPv4Network], wanted: ipaddress.IPv4Network
) -> None:
    directory: Directory[str] = Directory()
    for network in networks:
        directory.put(network, str(network))
    found = sorted(owner for _, owner in directory.overlapping(wanted))
    assert found == sorted({str(network) for network in networks if network.overlaps(wanted)})
