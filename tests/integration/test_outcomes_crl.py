"""Outcomes of CRLfile and CRLpath with chain, pinned leaf and requireCert, against openssl and stunnel4.

How rows are chosen stands in `outcomes`. A CRL that is missing, past its date, not signed by its issuer or of
another CA rejects: nobody knows whether the certificate was revoked.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import Culvert, require
from .openssl import s_client, shown
from .outcomes import BAD_CERT, PASSES, REFUSED, Row, Table, clients, played, servers
from .pki import Pki, revocation_list
from .refusals import refuse

Start = Callable[..., Culvert]

CHAIN = "CAfile = {root}\nverifyChain = yes\n"
PEER = "CAfile = {pinned}\nverifyPeer = yes\n"
CURRENT = "CRLfile = {crl}\n"

REVOKED = "certificate revoked"
NO_LIST = "unable to get certificate CRL"

BOTH_ROLES = (
    ("current-good", CHAIN + CURRENT, "good", PASSES),
    ("current-revoked", CHAIN + CURRENT, "revoked", REFUSED, REVOKED),
    ("revoked-is-rejected-by-name", CHAIN + CURRENT, "revoked", REFUSED, BAD_CERT),
    ("empty-list", CHAIN + "CRLfile = {crl_empty}\n", "revoked", PASSES),
    ("list-past-its-date", CHAIN + "CRLfile = {crl_expired}\n", "good", REFUSED, "CRL has expired"),
    ("list-of-the-future", CHAIN + "CRLfile = {crl_future}\n", "good", REFUSED, "CRL is not yet valid"),
    ("list-of-another-ca", CHAIN + "CRLfile = {crl_other}\n", "good", REFUSED, NO_LIST),
    ("forged-list", CHAIN + "CRLfile = {crl_forged}\n", "good", REFUSED, "CRL signature failure"),
    ("lists-for-the-whole-chain", CHAIN + "CRLfile = {crls}\n", "chained", PASSES),
    ("revoked-below-an-intermediate", CHAIN + "CRLfile = {crls}\n", "chainedrevoked", REFUSED, REVOKED),
    ("no-list-for-the-leaf", CHAIN + CURRENT, "chained", REFUSED, NO_LIST),
    ("intermediate-itself-revoked", CHAIN + "CRLfile = {crls_against_middle}\n", "chained", REFUSED, REVOKED),
    ("stranger-with-lists-of-both", CHAIN + "CRLfile = {crl_both}\n", "stranger", REFUSED, BAD_CERT),
    ("folder-good", CHAIN + "CRLpath = {crl_folder}\n", "good", PASSES),
    ("folder-revoked", CHAIN + "CRLpath = {crl_folder}\n", "revoked", REFUSED, REVOKED),
    ("folder-without-the-list", CHAIN + "CRLpath = {empty_folder}\n", "good", REFUSED, NO_LIST),
    ("file-and-folder", CHAIN + "CRLfile = {crl_middle}\nCRLpath = {crl_folder}\n", "chained", PASSES),
    # The trusted folder instead of the file: the list counts all the same.
    ("list-with-capath", "CApath = {ca_folder}\nverifyChain = yes\n" + CURRENT, "good", PASSES),
    (
        "list-with-capath-revoked",
        "CApath = {ca_folder}\nverifyChain = yes\n" + CURRENT,
        "revoked",
        REFUSED,
        REVOKED,
    ),
    ("pinned-good", PEER + CURRENT, "good", PASSES),
    ("pinned-and-revoked", PEER + CURRENT, "revoked", REFUSED, REVOKED),
    ("verify-3-and-revoked", "CAfile = {pinned}\nverify = 3\n" + CURRENT, "revoked", REFUSED, REVOKED),
    ("verify-4-and-revoked", "CAfile = {pinned}\nverify = 4\n" + CURRENT, "revoked", REFUSED, REVOKED),
    ("right-subject-and-revoked", CHAIN + CURRENT + "checkHost = localhost\n", "revoked", REFUSED, REVOKED),
    ("not-revoked-and-wrong-subject", CHAIN + CURRENT + "checkHost = x.example\n", "good", REFUSED, BAD_CERT),
    ("optional-excuses-no-revoked", CHAIN + CURRENT + "requireCert = no\n", "revoked", REFUSED, REVOKED),
    (
        "optional-excuses-no-missing-list",
        CHAIN + "CRLfile = {crl_other}\nrequireCert = no\n",
        "good",
        REFUSED,
        NO_LIST,
    ),
)

SERVERS = (
    ("no-certificate", CHAIN + CURRENT, "none", REFUSED, "peer did not return a certificate"),
    ("no-certificate-optional", CHAIN + CURRENT + "requireCert = no\n", "none", PASSES),
    ("verify-1-excuses-no-revoked", "CAfile = {root}\nverify = 1\n" + CURRENT, "revoked", REFUSED, REVOKED),
)

RESUMED = (
    ("resumed-current", CHAIN + CURRENT, "good", PASSES),
    ("resumed-revoked", CHAIN + CURRENT, "revoked", REFUSED),
)

ROWS = [
    *servers(*BOTH_ROLES, *SERVERS),
    *clients(*BOTH_ROLES),
    *servers(*RESUMED, resumed=True),
    *clients(*RESUMED, resumed=True),
]


def hashed(folder: Path, *files: Path, crl: bool) -> Path:
    """A folder in which these files have the names by which OpenSSL looks for them."""
    folder.mkdir(exist_ok=True)
    for file in files:
        what = ["crl", "-hash", "-noout"] if crl else ["x509", "-hash", "-noout"]
        command = [require("openssl"), *what, "-in", str(file)]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        # By a rename, as an operator should: who looks for it meanwhile sees all of it or nothing.
        fresh = folder / f"{name}.new"
        shutil.copy(file, fresh)
        fresh.rename(folder / f"{name}.{'r0' if crl else '0'}")
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Table]:
    folder = tmp_path_factory.mktemp("crl-table")
    more = {
        "crl_folder": hashed(folder / "crls", Path(pki.files["crl"]), crl=True),
        "empty_folder": hashed(folder / "empty", crl=True),
        "ca_folder": hashed(folder / "cas", pki.root.cert, crl=False),
    }
    with Table(folder, pki, ROWS, more) as table:
        yield table


@played(ROWS)
def test_outcome(table: Table, row: Row, version: str, peer: str) -> None:
    table.check(row, version, peer)


def greets(pki: Pki, options: str) -> str:
    """A server service that greets whom it accepts."""
    leaf = pki.kinds["good"]
    return (
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\nCAfile = {pki.files['root']}\nverifyChain = yes\n{options}"
    )


def test_a_list_that_is_put_into_the_folder_counts_at_once(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    """No restart and no reload: first no list, then one, then one that revokes the client."""
    folder = hashed(tmp_path / "crls", crl=True)
    daemon = culvert(greets(pki, f"CRLpath = {folder}\n"))

    def welcomed() -> bool:
        visit = s_client(daemon.port("s"), *shown(pki.kinds["other"]), version=version)
        return visit.received == "welcome\n"

    assert not welcomed(), "no list, nobody knows"
    hashed(folder, Path(pki.files["crl_empty"]), crl=True)
    assert welcomed()
    newer = pki.write("crl_newer", revocation_list(pki.root, [pki.kinds["other"]], starts=0))
    hashed(folder, newer, crl=True)
    assert not welcomed()
    daemon.await_log("certificate revoked")


def test_a_session_from_before_a_newer_list_lets_nobody_in(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    """The first connection after the list has come is held to it, too."""
    folder = hashed(tmp_path / "crls", Path(pki.files["crl_empty"]), crl=True)
    daemon = culvert(greets(pki, f"CRLpath = {folder}\n"))
    session = tmp_path / "session"
    arguments = [*shown(pki.kinds["revoked"]), "-sess_out", str(session)]
    assert s_client(daemon.port("s"), *arguments, version=version).received == "welcome\n"
    hashed(folder, Path(pki.files["crl"]), crl=True)
    arguments += ["-sess_in", str(session)]
    assert s_client(daemon.port("s"), *arguments, version=version).received == ""
    daemon.await_log("certificate revoked")


def test_a_reload_takes_a_changed_list_file(culvert: Start, pki: Pki, tmp_path: Path, version: str) -> None:
    """The session that the client keeps from before does not let it in either."""
    path = tmp_path / "list.pem"
    shutil.copy(pki.files["crl_empty"], path)
    services = greets(pki, f"CRLfile = {path}\n")
    daemon = culvert(services)
    session = tmp_path / "session"
    arguments = [*shown(pki.kinds["revoked"]), "-sess_out", str(session)]
    assert s_client(daemon.port("s"), *arguments, version=version).received == "welcome\n"
    shutil.copy(pki.files["crl"], path)
    mark = daemon.reload(services)
    daemon.await_log("Accepting new connections", since=mark)
    arguments += ["-sess_in", str(session)]
    assert s_client(daemon.port("s"), *arguments, version=version).received == ""
    daemon.await_log("certificate revoked", since=mark)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "(?i:no such file)"),
        ("", "(?i:no .*(crl|revocation))"),
        ("-----BEGIN X509 CRL-----\nnonsense\n-----END X509 CRL-----\n", "(?i:crl|revocation)"),
    ],
    ids=["missing", "empty", "garbage"],
)
def test_a_list_that_cannot_be_read_fails_the_start(
    pki: Pki, tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "list.pem"
    if content is not None:
        path.write_text(content)
    refuse(tmp_path, greets(pki, f"CRLfile = {path}\n"), rf"culvert\.conf:\d+: .*{path}.*({said})")
