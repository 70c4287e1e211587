"""Application protocols: which one is chosen, and what a peer's list can do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.tls.alpn import choose

from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (b"\x02h2", b"h2"),
        (b"\x08http/1.1\x02h2", b"h2"),
        (b"\x08http/1.1", b"http/1.1"),
        (b"\x02h3\x03h2x", None),
        (b"\x04h2h2", None),
        (b"", None),
    ],
)
def test_the_first_that_the_client_offers(offered: bytes, chosen: bytes | None) -> None:
    assert choose((b"h2", b"http/1.1"), offered) == chosen


@given(st.lists(st.binary(min_size=1, max_size=255)), st.binary())
def test_any_bytes_give_a_choice_or_one_error(names: list[bytes], junk: bytes) -> None:
    wire = b"".join(bytes((len(name),)) + name for name in names)
    assert (choose((b"h2",), wire) == b"h2") is (b"h2" in names)
    try:
        assert choose((b"h2",), junk) in (None, b"h2")
    except ValueError:
        return


@VERSIONS
@pytest.mark.parametrize(
    ("client", "server", "protocol"),
    [
        ("alpn = http/1.1, h2", "alpn = h2, http/1.1", "h2"),
        ("alpn = http/1.1", "alpn = h2, http/1.1", "http/1.1"),
        ("", "alpn = h2", None),
        ("alpn = h2", "", None),
    ],
)
def test_what_two_ends_negotiate(
    *, authority: Authority, version: str, client: str, server: str, protocol: str | None
) -> None:
    pair = Pair(context(version, client, client=True), context(version, server, authority.server_cert))
    assert pair.shake_hands().accepted
    assert (pair.client.engine.protocol, pair.server.engine.protocol) == (protocol, protocol)


@VERSIONS
def test_no_protocol_in_common_ends_the_handshake(authority: Authority, version: str) -> None:
    ends = context(version, "alpn = a b", client=True), context(version, "alpn = c", authority.server_cert)
    pair = Pair(*ends).shake_hands()
    assert "no application protocol" in str(pair.server.failure)
    assert "alert no application protocol" in str(pair.client.failure)
