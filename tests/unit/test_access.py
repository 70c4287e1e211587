"""Networks: which addresses they hold, and who may come by them."""

from __future__ import annotations

import asyncio
import ipaddress
from ctypes.util import find_library
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert import config
from culvert.access import AccessControl, NetworkSet
from culvert.config.networks import network
from culvert.libwrap import TcpWrappers
from culvert.negotiate.script import Ends
from culvert.refusals import RefusedError
from culvert.resolve import InternetAddress

from .targets.targets import Written


def control(lines: str, accept: str = "1") -> AccessControl:
    text = f"[s]\naccept = {accept}\nconnect = 2\ncert = server.pem\n{lines}"
    (service,) = config.loads(text, "test.conf").services
    return AccessControl(service, None)


def refusal(access: AccessControl, host: str | None) -> str | None:
    address: InternetAddress | None = None if host is None else (host, 50000)
    try:
        access.check_connecting(address)
    except RefusedError as error:
        return error.key
    return None


ALLOW = "allowFrom = 10.0.0.0/8, 2001:db8::/32"


@pytest.mark.parametrize(
    ("lines", "host", "expected"),
    [
        ("", "192.0.2.1", None),
        ("", None, None),
        (ALLOW, "10.255.0.1", None),
        (ALLOW, "11.0.0.1", "not allowed"),
        (ALLOW, "::ffff:10.0.0.1", None),
        (ALLOW, "::ffff:11.0.0.1", "not allowed"),
        (ALLOW, "2001:db8::1", None),
        (ALLOW, "2001:db9::1", "not allowed"),
        ("denyFrom = 10.0.0.0/8", "10.0.0.1", "denied"),
        ("denyFrom = 10.0.0.0/8", "::ffff:10.0.0.1", "denied"),
        ("denyFrom = 10.0.0.0/8", "11.0.0.1", None),
        ("denyFrom = ::/0", "11.0.0.1", None),
        ("denyFrom = fe80::/10", "fe80::1%eth0", "denied"),
        (ALLOW + "\ndenyFrom = 10.0.0.5", "10.0.0.5", "denied"),
        ("denyFrom = 10.0.0.5\n" + ALLOW, "10.0.0.6", None),
        ("acceptProxy = yes\ntrustProxy = 10.0.0.5", "10.0.0.5", None),
        ("acceptProxy = yes\ntrustProxy = 10.0.0.5", "::ffff:10.0.0.5", None),
        ("acceptProxy = yes\ntrustProxy = 10.0.0.5", "10.0.0.6", "no trusted proxy"),
        # It is the client behind the proxy whom these are about.
        ("acceptProxy = yes\ntrustProxy = 10.0.0.5\ndenyFrom = 10.0.0.5", "10.0.0.5", None),
    ],
)
def test_who_may_connect(lines: str, host: str | None, expected: str | None) -> None:
    assert refusal(control(lines), host) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("allowFrom = unix", None),
        ("allowFrom = unix\ndenyFrom = unix", "denied"),
        ("denyFrom = 0.0.0.0/0, ::/0", None),
        ("acceptProxy = yes", None),
    ],
)
def test_who_may_connect_by_a_unix_socket(lines: str, expected: str | None) -> None:
    assert refusal(control(lines, "/run/s"), None) == expected


def test_a_client_whose_proxy_tells_no_address_is_not_among_those_allowed() -> None:
    access = control("acceptProxy = yes\nallowFrom = 10.0.0.0/8", "/run/s")
    with pytest.raises(RefusedError):
        access.check(None)


def test_a_client_without_an_address_has_no_ident_server_that_could_name_it(tmp_path: Path) -> None:
    """Rules see to it where the service accepts by a Unix socket itself; others can hand such a client on."""
    access = control("ident = joe")
    written = Written(tmp_path / "log")
    with pytest.raises(RefusedError) as refused:
        asyncio.run(access.admit(Ends(None, None), written.channel))
    written.close()
    assert refused.value.key == "ident"


@pytest.mark.skipif(find_library("wrap") is None, reason="there is no libwrap")
def test_that_libwrap_is_not_asked_for_a_client_without_an_address_is_told(tmp_path: Path) -> None:
    """As in inetd mode on pipes: nobody could know from the configuration."""
    (service,) = config.loads("connect = 2\ncert = server.pem\nlibwrap = yes\n", "test.conf").services
    written = Written(tmp_path / "log")
    asyncio.run(AccessControl(service, TcpWrappers()).admit(Ends(None, None), written.channel))
    written.close()
    assert "libwrap is not asked: the client has no address" in written.text


@given(
    st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), max_size=6),
    st.integers(0, 32),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
)
def test_a_set_holds_what_its_networks_hold(
    hosts: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
    length: int,
    asked: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    written = [str(ipaddress.ip_network((host, length), strict=False)) for host in hosts]
    networks = [network(text) for text in written]
    mapped = asked.ipv4_mapped if isinstance(asked, ipaddress.IPv6Address) else None
    expected = any((mapped or asked) in one for one in networks)
    assert (str(asked) in NetworkSet(networks)) is expected
