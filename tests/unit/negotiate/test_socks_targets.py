"""Where SOCKS clients may go: by address after resolving, with and without rules."""

from __future__ import annotations

import pytest

from culvert.config.socks_rules import SOCKS_RULE
from culvert.negotiate.socks_targets import SocksTargets


def targets(*rules: str) -> SocksTargets:
    return SocksTargets([SOCKS_RULE.parse(rule) for rule in rules])


def refusal(
    rules: tuple[str, ...], address: str, host: str = "name.test", port: int = 443, *, own: bool = False
) -> str | None:
    return targets(*rules).refusal(host, address, port, own=own)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_without_a_rule_the_addresses_of_others_are_open(address: str) -> None:
    assert refusal((), address) is None


SPECIAL = {
    "127.0.0.1": "the IPv4 loopback",
    "127.200.1.2": "the IPv4 loopback",
    "::ffff:127.0.0.1": "the IPv4 loopback",
    "::1": "the IPv6 loopback",
    "0.0.0.0": "the unspecified IPv4 address",
    "::ffff:0.0.0.0": "the unspecified IPv4 address",
    "::": "the unspecified IPv6 address",
    "169.254.169.254": "an IPv4 link-local address",
    "fe80::1": "an IPv6 link-local address",
    "fe80::1%eth0": "an IPv6 link-local address",
    "224.0.0.1": "an IPv4 multicast address",
    "ff02::1": "an IPv6 multicast address",
    "255.255.255.255": "the IPv4 broadcast address",
}


@pytest.mark.parametrize(("address", "what"), SPECIAL.items())
def test_without_a_rule_special_addresses_are_closed(address: str, what: str) -> None:
    assert refusal((), address) == f"SOCKS connection to {what} rejected"


def test_without_a_rule_this_machine_is_closed() -> None:
    assert refusal((), "192.0.2.1", own=True) == "SOCKS connection to an address of this machine rejected"


@pytest.mark.parametrize(
    ("rule", "host", "address", "port"),
    [
        ("name.test", "name.test", "192.0.2.1", 1),
        ("name.test", "NAME.test.", "192.0.2.1", 1),
        ("*.test", "name.test", "192.0.2.1", 1),
        ("192.0.2.0/24", "name.test", "192.0.2.1", 1),
        ("192.0.2.1", "192.0.2.1", "192.0.2.1", 1),
        ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.1", 1),
        ("[2001:db8::/32]:80-90", "name.test", "2001:db8::5", 85),
        ("*:443", "name.test", "192.0.2.1", 443),
    ],
)
def test_a_rule_permits(rule: str, host: str, address: str, port: int) -> None:
    chosen = targets("other.test", rule)
    assert chosen.refusal_of_name(host, port) is None
    assert chosen.refusal(host, address, port, own=False) is None


@pytest.mark.parametrize(
    ("rule", "host", "address", "port"),
    [
        ("name.test:443", "name.test", "192.0.2.1", 80),
        ("name.test", "other.test", "192.0.2.1", 443),
        ("name.test", "192.0.2.1", "192.0.2.1", 443),
        ("*.test", "test", "192.0.2.1", 443),
        ("*.test", "nametest", "192.0.2.1", 443),
        ("192.0.2.0/24", "name.test", "192.0.3.1", 443),
        ("[2001:db8::/32]:80-90", "name.test", "2001:db8::5", 91),
    ],
)
def test_what_no_rule_permits_is_closed(rule: str, host: str, address: str, port: int) -> None:
    reason = refusal((rule,), address, host, port)
    assert reason == f"SOCKS connection to {host} port {port} rejected: no socksAllow permits it"


@pytest.mark.parametrize(
    ("rule", "host", "address"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.0/8", "name.test", "127.0.0.9"),
        ("localhost", "localhost", "::1"),
        ("::1", "name.test", "::1"),
        ("169.254.0.0/16", "name.test", "169.254.1.1"),
    ],
)
def test_a_rule_that_means_it_opens_a_special_address(rule: str, host: str, address: str) -> None:
    assert refusal((rule,), address, host) is None


@pytest.mark.parametrize("rule", ["*", "0.0.0.0/0", "*.test", "96.0.0.0/3"])
def test_a_wide_rule_leaves_loopback_closed(rule: str) -> None:
    assert refusal((rule,), "127.0.0.1") == "SOCKS connection to the IPv4 loopback rejected"


@pytest.mark.parametrize("address", SPECIAL)
def test_the_owner_of_a_permitted_name_cannot_lead_it_to_a_special_address(address: str) -> None:
    assert refusal(("name.test",), address) == f"SOCKS connection to {SPECIAL[address]} rejected"


def test_localhost_means_the_loopback_alone() -> None:
    assert refusal(("db.localhost",), "127.0.0.1", "db.localhost") is None
    assert refusal(("localhost",), "169.254.169.254", "localhost") is not None
    assert refusal(("notlocalhost",), "127.0.0.1", "notlocalhost") is not None


def test_this_machine_needs_a_rule_with_its_address_or_name() -> None:
    assert refusal(("10.0.0.0/8",), "10.0.0.5", own=True) is not None
    assert refusal(("10.0.0.5",), "10.0.0.5", own=True) is None
    assert refusal(("me.test",), "10.0.0.5", "me.test", own=True) is None


def test_a_name_that_no_rule_could_permit_is_not_looked_up() -> None:
    assert targets("name.test:443").refusal_of_name("other.test", 443) is not None
    assert targets("name.test:443", "10.0.0.0/8:80").refusal_of_name("other.test", 443) is not None
    assert targets("10.0.0.0/8:443").refusal_of_name("other.test", 443) is None
    assert targets().refusal_of_name("other.test", 443) is None
