"""The first message each way."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.vpn.hello import Hello, decode
from culvert.vpn.transport import FrameError

FULL = Hello(
    own=(ipaddress.ip_address("10.9.0.2"), ipaddress.ip_address("fd09::2")),
    yours=(ipaddress.ip_address("10.9.0.1"),),
    routes=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/16")),
    mtu=1400,
    udp=True,
    lease="abc",
    fixed=True,
)


def changed(**values: object) -> bytes:
    """A HELLO with other values, or without those that are None."""
    found = json.loads(FULL.encode()) | values
    return json.dumps({name: value for name, value in found.items() if value is not None}).encode()


def test_it_comes_back_as_it_was() -> None:
    assert decode(FULL.encode()) == FULL
    assert decode(Hello().encode()) == Hello()


def test_what_is_not_known_is_passed_over() -> None:
    assert decode(changed(compression="zlib")) == FULL


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"version": 2}, "version '2', this end speaks 1"),
        ({"version": None}, "version 'None'"),
        ({"version": True}, "version 'True'"),
        ({"own": ["nobody"]}, "an address that is none"),
        ({"own": ["127.0.0.1"]}, "no host can have"),
        ({"own": ["ff02::1"]}, "no host can have"),
        ({"own": ["fe80::1%eth0"]}, "no host can have"),
        ({"own": ["::ffff:10.0.0.1"]}, "no host can have"),
        ({"own": "10.9.0.2"}, "no list"),
        ({"own": [1]}, "no list"),
        ({"own": ["10.9.0.2"] * 9}, "at most 8"),
        ({"routes": ["10.0.0.1/8"]}, "a network that is none"),
        ({"routes": ["224.0.0.0/4"]}, "nothing is routed"),
        ({"routes": ["10.0.0.0/8"] * 257}, "at most 256"),
        ({"mtu": 100}, "mtu"),
        ({"mtu": 1e400}, "mtu"),
        ({"mtu": True}, "mtu"),
        ({"udp": 1}, "udp"),
        ({"lease": "x" * 65}, "lease"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        decode(changed(**values))


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 16000, b"1" * 5000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode(body)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_the_error(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode(body)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


@given(
    st.dictionaries(
        st.sampled_from(["own", "yours", "routes", "mtu", "udp", "lease", "fixed"]),
        VALUES | st.lists(VALUES, max_size=3),
    )
)
def test_any_values_end_in_a_hello_or_in_the_error(values: dict[str, object]) -> None:
    try:
        decode(changed(**values))
    except FrameError:
        return


def test_too_many_routes_to_tell_of() -> None:
    networks = tuple(ipaddress.ip_network((number << 8, 24)) for number in range(300))
    with pytest.raises(ValueError, match="300 networks"):
        Hello(routes=networks).encode()
