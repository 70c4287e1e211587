"""OCSP answers inside the handshake, and what a context remembers of who issued what."""

from __future__ import annotations

import pytest

from culvert.tls import stapling
from culvert.tls.ocsp import ANSWER_LIMIT

from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context
from .ocsp_answers import answer

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])
VERIFIED = "verifyChain = yes"


@VERSIONS
def test_a_staple_arrives_as_it_was(authority: Authority, version: str) -> None:
    server = context(version, authority.server_cert)
    client = context(version, authority.trust, VERIFIED, client=True)
    assert server.staple is not None
    short = answer(authority.server, authority.root)
    long = answer(authority.server, authority.root, signer=authority.client, nonce=b"n" * 13500)
    assert ANSWER_LIMIT * 0.9 < len(long) <= ANSWER_LIMIT
    for staple in (short, long, None):
        server.staple.der = staple
        pair = Pair(client, server)
        pair.shake_hands()
        assert pair.accepted
        assert stapling.received(pair.client.engine) == staple


@VERSIONS
def test_a_staple_that_is_none_breaks_nothing(authority: Authority, version: str) -> None:
    server = context(version, authority.server_cert)
    assert server.staple is not None
    for size in (1, 100, 20000):
        server.staple.der = b"\x30" * size
        pair = Pair(context(version, authority.trust, VERIFIED, client=True), server)
        pair.shake_hands()
        assert pair.accepted
        assert stapling.received(pair.client.engine) is None


@VERSIONS
@pytest.mark.parametrize(
    ("options", "asks"),
    [
        ([VERIFIED], True),
        ([VERIFIED, "OCSPaia = yes"], True),
        ([VERIFIED, "OCSPaia = yes", "OCSPnonce = yes"], False),
        ([], False),
    ],
)
def test_which_clients_ask(authority: Authority, version: str, options: list[str], asks: bool) -> None:
    server = context(version, authority.server_cert)
    assert server.staple is not None
    server.staple.der = answer(authority.server, authority.root)
    pair = Pair(context(version, authority.trust, *options, client=True), server)
    pair.shake_hands()
    assert (stapling.received(pair.client.engine) is not None) == asks


@VERSIONS
def test_the_chain_that_was_verified(authority: Authority, version: str) -> None:
    pair = Pair(
        context(version, authority.trust, VERIFIED, client=True), context(version, authority.server_cert)
    )
    pair.shake_hands()
    assert stapling.verified_chain(pair.client.engine) == [authority.root.certificate]
    assert stapling.verified_chain(pair.server.engine) == []
