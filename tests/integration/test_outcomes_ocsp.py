"""Outcomes of OCSP, OCSPaia, OCSPnonce, OCSPrequire and of staples, with `openssl ocsp` as the responder.

How rows are chosen stands in `outcomes`. Every way in which an answer can be no answer (none, late, false, of
another, too long) refuses, unless OCSPrequire = no lets a status stay unknown; "revoked" is never that.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .ocsp_world import OcspWorld, ocsp_world
from .outcomes import (
    BAD_CERT,
    OPENSSL,
    PASSES,
    REDIRECTED,
    REFUSED,
    Row,
    Table,
    clients,
    played,
    servers,
)
from .pki import revocation_list

CHAIN = "CAfile = {root}\nverifyChain = yes\n"
PEER = "CAfile = {pinned}\nverifyPeer = yes\n"
ASK = CHAIN + "OCSP = {responder}\n"
AIA = CHAIN + "OCSPaia = yes\n"
TOLERANT = "OCSPrequire = no\n"

GOOD = r"OCSP: Accepted \(good\)"
REVOKED = r"OCSP: Rejected \(revoked\)"
BY_OCSP = r"Rejected by OCSP at depth=\d"


def odd(name: str) -> str:
    """The options that ask the odd responder for this answer."""
    return f"{CHAIN}OCSP = {{odd_{name}}}\n"


RESPONDERS = (
    ("good", ASK, "good", PASSES, GOOD),
    ("revoked", ASK, "revoked", REFUSED, REVOKED),
    ("revoked-is-rejected-by-name", ASK, "revoked", REFUSED, BY_OCSP),
    ("not-in-the-index", ASK, "other", REFUSED, BY_OCSP),
    ("nonce", ASK + "OCSPnonce = yes\n", "good", PASSES, GOOD),
    ("nonce-and-revoked", ASK + "OCSPnonce = yes\n", "revoked", REFUSED, REVOKED),
    ("delegated", CHAIN + "OCSP = {by_delegated}\n", "good", PASSES, GOOD),
    ("delegated-revoked", CHAIN + "OCSP = {by_delegated}\n", "revoked", REFUSED, REVOKED),
    ("not-delegated", CHAIN + "OCSP = {by_undelegated}\n", "good", REFUSED, BY_OCSP),
    ("delegated-by-another-ca", CHAIN + "OCSP = {by_foreign}\n", "good", REFUSED, BY_OCSP),
    ("bad-signature", CHAIN + "OCSP = {badsig}\n", "good", REFUSED, BY_OCSP),
    ("down", CHAIN + "OCSP = {down}\n", "good", REFUSED, BY_OCSP),
    ("down-tolerated", CHAIN + "OCSP = {down}\n" + TOLERANT, "good", PASSES),
    ("tolerant-and-good", ASK + TOLERANT, "good", PASSES, GOOD),
    ("tolerant-excuses-no-revoked", ASK + TOLERANT, "revoked", REFUSED, REVOKED),
    ("tolerant-excuses-no-stranger", ASK + TOLERANT, "stranger", REFUSED, BAD_CERT),
    ("leaf-of-an-intermediate", CHAIN + "OCSP = {middle_responder}\n", "chained", PASSES, GOOD),
    (
        "revoked-below-an-intermediate",
        CHAIN + "OCSP = {middle_responder}\n",
        "chainedrevoked",
        REFUSED,
        REVOKED,
    ),
    ("stranger-known-to-the-responder", ASK, "stranger", REFUSED, BAD_CERT),
    ("expired-certificate", odd("good"), "expired", REFUSED, BAD_CERT),
    ("wrong-subject", ASK + "checkHost = elsewhere.example\n", "good", REFUSED, BAD_CERT),
    ("right-subject-and-revoked", ASK + "checkHost = localhost\n", "revoked", REFUSED, REVOKED),
    ("pinned-good", PEER + "OCSP = {responder}\n", "good", PASSES, GOOD),
    ("pinned-and-revoked", PEER + "OCSP = {responder}\n", "revoked", REFUSED, REVOKED),
    (
        "verify-3-and-revoked",
        "CAfile = {pinned}\nverify = 3\nOCSP = {responder}\n",
        "revoked",
        REFUSED,
        REVOKED,
    ),
    (
        "verify-4-and-revoked",
        "CAfile = {pinned}\nverify = 4\nOCSP = {responder}\n",
        "revoked",
        REFUSED,
        REVOKED,
    ),
    (
        "list-revokes-and-responder-does-not",
        odd("good") + "CRLfile = {crl_of_good}\n",
        "good",
        REFUSED,
        BAD_CERT,
    ),
    ("responder-revokes-and-list-does-not", ASK + "CRLfile = {crl_empty}\n", "revoked", REFUSED, REVOKED),
    ("list-and-responder", ASK + "CRLfile = {crl}\n", "good", PASSES, GOOD),
    ("aia-good", AIA, "aiagood", PASSES, GOOD),
    ("aia-revoked", AIA, "aiarevoked", REFUSED, REVOKED),
    ("aia-down", AIA, "aiadown", REFUSED, BY_OCSP),
    ("aia-down-tolerated", AIA + TOLERANT, "aiadown", PASSES),
    ("aia-loop", AIA, "aialoop", REFUSED, BY_OCSP),
    ("aia-not-http", AIA, "aiastrange", REFUSED, BY_OCSP),
    ("aia-broken-url", AIA, "aiabroken", REFUSED, BY_OCSP),
    ("aia-names-none", AIA, "good", REFUSED, BY_OCSP),
    ("aia-names-none-tolerated", AIA + TOLERANT, "good", PASSES),
    ("aia-tolerant-excuses-no-revoked", AIA + TOLERANT, "aiarevoked", REFUSED, REVOKED),
    # Who does not ask is not told.
    ("aia-not-asked-for", CHAIN, "aiarevoked", PASSES),
)

ANSWERS = (
    ("answer-good", odd("good"), "good", PASSES, GOOD),
    ("answer-without-next-update", odd("fleeting"), "good", PASSES, GOOD),
    ("answer-delegated", odd("delegated"), "good", PASSES, GOOD),
    ("answer-revoked", odd("revoked"), "good", REFUSED, REVOKED),
    *(
        (f"answer-{name}", odd(name), "good", REFUSED, BY_OCSP)
        for name in (
            *("unknown", "stale", "early", "another", "anothers_issuer", "undelegated", "by_itself"),
            *("foreign", "foreign_ca", "lapsed", "damaged", "later"),
            *("error", "loop", "garbage", "empty", "endless"),
        )
    ),
    # The good answer is not for the one that is shown.
    ("answer-for-the-other-shown", odd("good"), "other", REFUSED, BY_OCSP),
)

SERVERS = (
    ("no-certificate", ASK, "none", REFUSED, "peer did not return a certificate"),
    ("no-certificate-optional", ASK + "requireCert = no\n", "none", PASSES),
    ("optional-excuses-no-revoked", ASK + "requireCert = no\n", "revoked", REFUSED, REVOKED),
    ("optional-excuses-no-silence", CHAIN + "OCSP = {down}\nrequireCert = no\n", "good", REFUSED, BY_OCSP),
)

REDIRECT = "redirect = {elsewhere}\n"
SAID = "Redirecting connection"

REDIRECTS = (
    ("redirect-good", REDIRECT + ASK, "good", PASSES),
    ("redirect-revoked", REDIRECT + ASK, "revoked", REDIRECTED, SAID),
    ("redirect-none", REDIRECT + ASK, "none", REDIRECTED, SAID),
    ("redirect-down", REDIRECT + CHAIN + "OCSP = {down}\n", "good", REDIRECTED, SAID),
    ("redirect-bad-signature", REDIRECT + CHAIN + "OCSP = {badsig}\n", "good", REDIRECTED, SAID),
    ("redirect-down-tolerated", REDIRECT + CHAIN + "OCSP = {down}\n" + TOLERANT, "good", PASSES),
)

RESUMED = (
    ("resumed-good", ASK, "good", PASSES),
    ("resumed-revoked", ASK, "revoked", REFUSED),
)


def staples(*names: str, verdict: object, log: str, options: str = CHAIN) -> list[Row]:
    """Rows in which an openssl server staples this answer about its certificate."""
    return [
        row
        for name in names
        for row in clients(
            (f"staple-{name}", options, "good", verdict, log), staple=f"staple_{name}", peers=OPENSSL
        )
    ]


STAPLES = [
    *staples("good", "delegated", "fleeting", verdict=PASSES, log=GOOD),
    *staples("revoked", verdict=REFUSED, log=REVOKED),
    *staples(
        *("unknown", "stale", "early", "another", "anothers_issuer", "undelegated", "by_itself"),
        *("foreign", "foreign_ca", "lapsed", "damaged", "later"),
        verdict=REFUSED,
        log=BY_OCSP,
    ),
    *clients(
        ("staple-revoked-tolerant", CHAIN + TOLERANT, "good", REFUSED, REVOKED),
        ("staple-revoked-pinned", PEER, "good", REFUSED, REVOKED),
        ("staple-revoked-and-responder-good", ASK, "good", REFUSED, REVOKED),
        staple="staple_revoked",
        peers=OPENSSL,
    ),
    *clients(
        ("staple-good-and-responder-down", CHAIN + "OCSP = {down}\n", "good", PASSES, GOOD),
        ("staple-good-wrong-subject", CHAIN + "checkHost = elsewhere.example\n", "good", REFUSED, BAD_CERT),
        ("staple-good-and-revoked-by-list", CHAIN + "CRLfile = {crl_of_good}\n", "good", REFUSED, BAD_CERT),
        ("staple-of-the-other", CHAIN, "other", REFUSED, BY_OCSP),
        ("staple-for-a-stranger", CHAIN, "stranger", REFUSED, BAD_CERT),
        staple="staple_good",
        peers=OPENSSL,
    ),
    *clients(
        ("staple-good-resumed", CHAIN, "good", PASSES), staple="staple_good", resumed=True, peers=OPENSSL
    ),
    *clients(
        ("staple-revoked-resumed", CHAIN, "good", REFUSED),
        staple="staple_revoked",
        resumed=True,
        peers=OPENSSL,
    ),
    # A client that asks no responder passes servers that staple nothing: most do not.
    *clients(("no-staple", CHAIN, "good", PASSES)),
]

ROWS = [
    *servers(*RESPONDERS, *SERVERS),
    *servers(*REDIRECTS, *RESUMED, resumed=True),
    *clients(*RESPONDERS),
    *clients(*RESUMED, resumed=True),
    *servers(*ANSWERS, peers=OPENSSL),
    *clients(*ANSWERS, peers=OPENSSL),
    *STAPLES,
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OcspWorld]:
    with ocsp_world(tmp_path_factory.mktemp("ocsp")) as world:
        yield world


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, world: OcspWorld) -> Iterator[Table]:
    pki = world.pki
    pki.write("crl_of_good", revocation_list(pki.root, [pki.kinds["good"]]))
    with Table(tmp_path_factory.mktemp("ocsp-table"), pki, ROWS, world.urls) as table:
        yield table


@played(ROWS)
def test_outcome(table: Table, row: Row, version: str, peer: str) -> None:
    table.check(row, version, peer)
