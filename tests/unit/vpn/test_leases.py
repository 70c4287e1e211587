"""Who gets which addresses."""

from __future__ import annotations

import ipaddress

import pytest

from culvert.config import loads
from culvert.config.vpn import Vpn
from culvert.vpn.hello import Hello
from culvert.vpn.leases import Leases, RefusedByServerError

HEAD = "[vpn]\naccept = 4430\ncert = c.pem\nCAfile = c.pem\nverifyChain = yes\ntun = cv0\n"


def leases(options: str) -> Leases[str]:
    """The leases of a server with these options."""
    vpn = loads(HEAD + options, "vpn.conf").services[0].vpn
    assert isinstance(vpn, Vpn)
    return Leases(vpn)


def wishing(*addresses: str, fixed: bool = False, lease: str = "") -> Hello:
    """A client that has these addresses, or would like them."""
    return Hello(own=tuple(map(ipaddress.ip_address, addresses)), fixed=fixed, lease=lease)


def given(found: Leases[str], holder: str, hello: Hello | None = None, *names: str) -> list[str]:
    """The addresses that a client gets."""
    return [str(one) for one in found.grant(holder, names, hello or Hello()).addresses]


POOL = "tunAddress = 10.9.0.1/29\ntunAddress = fd09::1/64\ntunPool = 10.9.0.0/29\ntunPool = fd09::/64\n"


def test_each_gets_an_address_of_each_version_and_none_that_is_taken() -> None:
    found = leases(POOL)
    assert given(found, "a") == ["10.9.0.2", "fd09::2"]
    assert given(found, "b") == ["10.9.0.3", "fd09::3"]


def test_a_pool_ends() -> None:
    found = leases("tunAddress = 10.9.0.1/29\ntunPool = 10.9.0.0/29\n")
    for number in range(5):
        given(found, str(number))
    with pytest.raises(RefusedByServerError, match="all addresses are given out"):
        given(found, "one more")
    found.release("3")
    assert given(found, "one more") == ["10.9.0.5"]


def test_a_wish_is_granted_where_it_is_free() -> None:
    found = leases(POOL)
    assert given(found, "a", wishing("10.9.0.5", "fd09::5")) == ["10.9.0.5", "fd09::5"]
    assert given(found, "b", wishing("10.9.0.5")) == ["10.9.0.2", "fd09::2"]
    assert given(found, "c", wishing("10.9.0.1", "10.9.0.7", "192.0.2.1"))[0] == "10.9.0.3"


def test_a_client_that_has_its_address_fixed_gets_it_or_nothing() -> None:
    found = leases(POOL)
    assert given(found, "a", wishing("10.9.0.6", fixed=True)) == ["10.9.0.6"]
    with pytest.raises(RefusedByServerError, match=r"would have 10\.9\.0\.6"):
        given(found, "b", wishing("10.9.0.6", fixed=True))
    with pytest.raises(RefusedByServerError, match=r"would have 192.0.2.1, .* is none"):
        given(found, "b", wishing("192.0.2.1", fixed=True))


def test_a_lease_takes_its_own_place_again() -> None:
    found = leases(POOL)
    first = found.grant("old", (), Hello())
    second = found.grant("new", (), wishing(lease=first.lease))
    assert (second.addresses, second.replaced) == (first.addresses, "old")
    found.release("old")
    assert given(found, "other", wishing(*map(str, first.addresses))) == ["10.9.0.3", "fd09::3"]


def test_a_lease_of_somebody_who_is_gone_gives_nothing() -> None:
    found = leases(POOL)
    first = found.grant("old", (), Hello())
    found.release("old")
    assert found.grant("new", (), wishing(lease=first.lease)).replaced is None
    assert found.grant("another", (), wishing(lease="made up")).replaced is None


NAMED = POOL + "tunClient = Laptop: 10.9.0.5, fd09::5, 192.168.7.0/24\n"


def test_a_certificate_s_name_decides() -> None:
    found = leases(NAMED)
    grant = found.grant("a", ("LAPTOP",), Hello())
    assert [str(one) for one in (*grant.addresses, *grant.routes)] == [
        "10.9.0.5",
        "fd09::5",
        "192.168.7.0/24",
    ]


def test_nobody_else_gets_an_address_that_has_a_name() -> None:
    found = leases(NAMED)
    assert given(found, "a", wishing("10.9.0.5")) == ["10.9.0.2", "fd09::2"]


def test_the_newer_of_one_name_replaces_the_older() -> None:
    found = leases(NAMED)
    found.grant("old", ("laptop",), Hello())
    assert found.grant("new", ("laptop",), Hello()).replaced == "old"


def test_names_alone_let_nobody_else_in() -> None:
    found = leases("tunAddress = 10.9.0.1\ntunClient = laptop:10.9.0.5\n")
    with pytest.raises(RefusedByServerError, match="no address is configured"):
        given(found, "a", None, "desktop")


def test_a_vpn_of_two_has_one_peer() -> None:
    found = leases("tunAddress = 10.9.0.1\ntunPeer = 10.9.0.2\n")
    assert given(found, "a") == ["10.9.0.2"]
    assert found.grant("b", (), wishing("10.9.0.2", fixed=True)).replaced == "a"
    with pytest.raises(RefusedByServerError, match=r"would have 10.9.0.3, and its address here is 10.9.0.2"):
        given(found, "c", wishing("10.9.0.3", fixed=True))


def test_one_name_never_has_more_of_a_pool_than_is_left_for_others() -> None:
    found = leases("tunAddress = 10.9.0.1/28\ntunPool = 10.9.0.0/28\n")
    for number in range(7):
        given(found, f"shared {number}", None, "shared")
    with pytest.raises(RefusedByServerError, match="as many to its name as are left"):
        given(found, "shared 7", None, "shared")
    assert given(found, "other", None, "other") == ["10.9.0.9"]


def test_a_version_of_which_no_address_is_left_is_told() -> None:
    found = leases(POOL)
    assert found.grant("a", (), Hello()).lacking == ()
    for number in range(4):
        given(found, str(number))
    grant = found.grant("late", (), Hello())
    assert [str(one) for one in grant.addresses] == ["fd09::7"]
    assert grant.lacking == (4,)


@pytest.mark.parametrize("with_lease", [True, False])
def test_a_renewed_link_is_told_from_another_host_with_the_same_name(with_lease: bool) -> None:
    found = leases(NAMED)
    first = found.grant("old", ("laptop",), Hello())
    second = found.grant("new", ("laptop",), wishing(lease=first.lease if with_lease else ""))
    assert (second.replaced, second.renewed) == ("old", with_lease)
