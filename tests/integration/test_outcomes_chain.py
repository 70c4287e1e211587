"""Outcomes of chain, pinned leaf, subject check and requireCert, against openssl and stunnel4.

How rows are chosen stands in `outcomes`. The truth table of the verify options over every kind of peer is in
test_verify; here are the pairs of checks, the certificates whose fault is not their issuer, and resumption.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .outcomes import BAD_CERT, PASSES, REFUSED, Row, Table, clients, played, servers
from .pki import Pki

CHAIN = "CAfile = {root}\nverifyChain = yes\n"
PEER = "CAfile = {leaves}\nverifyPeer = yes\n"
CHAIN_AND_PEER = "CAfile = {pinned}\nverifyChain = yes\nverifyPeer = yes\n"
HOST = "checkHost = localhost\n"
WRONG_HOST = "checkHost = elsewhere.example\n"
EMAIL = "checkEmail = good@example.com\n"
OPTIONAL = "requireCert = no\n"

NOT_THE_LEAF = "The certificate itself is not in CAfile"
WRONG_SUBJECT = "No checkHost, checkIP or checkEmail matches"

BOTH_ROLES = (
    ("chain-good", CHAIN, "good", PASSES, "Certificate accepted at depth=0"),
    ("chain-other", CHAIN, "other", PASSES),
    ("chain-stranger", CHAIN, "stranger", REFUSED, BAD_CERT),
    ("chain-of-the-cas-twin", CHAIN, "forged", REFUSED, "certificate signature failure|unable to get"),
    ("chain-expired", CHAIN, "expired", REFUSED, "certificate has expired"),
    ("chain-future", CHAIN, "future", REFUSED, "certificate is not yet valid"),
    ("chain-self-signed", CHAIN, "self", REFUSED, "self-signed certificate"),
    ("chain-through-an-intermediate", CHAIN, "chained", PASSES),
    ("chain-without-its-intermediate", CHAIN, "headless", REFUSED, "unable to get local issuer"),
    # OpenSSL sorts what a peer sends, as RFC 8446, 4.4.2, asks for.
    ("chain-in-disorder", CHAIN, "shuffled", PASSES),
    # An intermediate in CAfile is no anchor without the root above it.
    ("intermediate-trusted", "CAfile = {middle}\nverifyChain = yes\n", "headless", REFUSED, BAD_CERT),
    ("peer-pinned", PEER, "good", PASSES),
    ("peer-pinned-self-signed", PEER, "self", PASSES),
    ("peer-not-pinned", PEER, "other", REFUSED, NOT_THE_LEAF),
    ("peer-pinned-and-expired", PEER, "expired", REFUSED, "certificate has expired"),
    ("peer-not-pinned-with-its-ca", "CAfile = {pinned}\nverifyPeer = yes\n", "other", REFUSED, NOT_THE_LEAF),
    ("chain-and-peer", CHAIN_AND_PEER, "good", PASSES),
    ("chain-without-peer", CHAIN_AND_PEER, "other", REFUSED, NOT_THE_LEAF),
    (
        "peer-without-chain",
        "CAfile = {leaves}\nverifyChain = yes\nverifyPeer = yes\n",
        "good",
        REFUSED,
        BAD_CERT,
    ),
    ("chain-and-subject", CHAIN + HOST, "good", PASSES),
    ("chain-without-subject", CHAIN + WRONG_HOST, "good", REFUSED, WRONG_SUBJECT),
    ("subject-without-chain", CHAIN + HOST, "stranger", REFUSED, BAD_CERT),
    ("chain-and-one-of-two-subjects", CHAIN + WRONG_HOST + EMAIL, "good", PASSES),
    ("chain-and-neither-subject", CHAIN + WRONG_HOST + EMAIL, "other", REFUSED, WRONG_SUBJECT),
    ("peer-and-subject", PEER + EMAIL, "good", PASSES),
    ("peer-without-subject", PEER + WRONG_HOST, "good", REFUSED, WRONG_SUBJECT),
    ("subject-without-peer", PEER + HOST, "other", REFUSED, NOT_THE_LEAF),
    ("optional-excuses-no-stranger", CHAIN + OPTIONAL, "stranger", REFUSED, BAD_CERT),
    ("optional-excuses-no-expired", PEER + OPTIONAL, "expired", REFUSED, "certificate has expired"),
    ("optional-excuses-no-subject", CHAIN + OPTIONAL + WRONG_HOST, "good", REFUSED, WRONG_SUBJECT),
)

NO_CERT = "peer did not return a certificate"

SERVERS = (
    ("no-certificate-asked-for", "", "none", PASSES),
    ("no-certificate-chain", CHAIN, "none", REFUSED, NO_CERT),
    ("no-certificate-peer", PEER, "none", REFUSED, NO_CERT),
    ("no-certificate-chain-optional", CHAIN + OPTIONAL, "none", PASSES),
    ("no-certificate-peer-optional", PEER + OPTIONAL, "none", PASSES),
    ("required-and-not-verified", "requireCert = yes\n", "none", REFUSED, NO_CERT),
    ("wrong-purpose-chain", CHAIN, "serveronly", REFUSED, "purpose"),
    ("right-purpose-chain", CHAIN, "clientonly", PASSES),
)

CLIENTS = (
    ("nothing-verified", "", "stranger", PASSES),
    ("wrong-purpose-chain", CHAIN, "clientonly", REFUSED, "purpose"),
    ("right-purpose-chain", CHAIN, "serveronly", PASSES),
)

RESUMED = (
    ("resumed-chain", CHAIN, "good", PASSES),
    ("resumed-chain-and-subject", CHAIN + EMAIL, "good", PASSES),
    ("resumed-peer", PEER, "good", PASSES),
    ("resumed-pinned-without-chain", PEER, "self", PASSES),
    ("resumed-chain-stranger", CHAIN, "stranger", REFUSED),
    ("resumed-peer-not-pinned", PEER, "other", REFUSED),
    ("resumed-wrong-subject", CHAIN + WRONG_HOST, "good", REFUSED),
)

ROWS = [
    *servers(*BOTH_ROLES, *SERVERS),
    *clients(*BOTH_ROLES, *CLIENTS),
    *servers(*RESUMED, ("resumed-optional", CHAIN + OPTIONAL, "none", PASSES), resumed=True),
    *clients(*RESUMED, resumed=True),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Table]:
    with Table(tmp_path_factory.mktemp("table"), pki, ROWS) as table:
        yield table


@played(ROWS)
def test_outcome(table: Table, row: Row, version: str, peer: str) -> None:
    table.check(row, version, peer)
