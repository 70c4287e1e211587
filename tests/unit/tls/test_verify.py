"""Verification, in both roles: who is accepted, who is refused, and what is said of it.

Each case was compared with Debian's stunnel 5.68, which decides the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from culvert.tls._openssl import ffi, lib
from culvert.tls.failure import take_errors
from culvert.tls.verify import Outcome

from ..identities import Identity, issue
from .certificates import (
    CLIENT_ONLY,
    LATIN_1_NAME,
    SERVER_ONLY,
    alternative_names,
    certify,
    common_name,
    with_raw_subject,
    write_identity,
    write_trust,
)
from .ends import TLS12, TLS13, Pair, context, give, output

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


@dataclass(frozen=True)
class Shown:
    """What a peer shows: its own certificate first."""

    own: Identity
    chain: tuple[Identity, ...] = ()


ROOT = issue("root")
INTERMEDIATE = issue("intermediate", ROOT)
LEAF = certify(common_name("leaf"), alternative_names(["leaf.test"]), issuer=INTERMEDIATE)
SELF_SIGNED = certify(common_name("self"))
NO_AUTHORITY = certify(common_name("none"), x509.BasicConstraints(ca=False, path_length=None), issuer=ROOT)

SHOWN = {
    "chain": Shown(LEAF, (INTERMEDIATE,)),
    "leaf": Shown(LEAF),
    "self": Shown(SELF_SIGNED),
    "expired": Shown(certify(common_name("expired"), issuer=ROOT, starts_in=-20, ends_in=-5)),
    "expired self": Shown(certify(common_name("old"), starts_in=-20, ends_in=-5)),
    "future": Shown(certify(common_name("future"), issuer=ROOT, starts_in=5)),
    "forged": Shown(certify(common_name("leaf"), issuer=issue("root"))),
    "by no authority": Shown(certify(common_name("sub"), issuer=NO_AUTHORITY), (NO_AUTHORITY,)),
}

TRUSTED = {
    "root": (ROOT,),
    "intermediate": (INTERMEDIATE,),
    "root and leaf": (ROOT, LEAF),
    **{name: (shown.own,) for name, shown in SHOWN.items()},
    "root and expired": (ROOT, SHOWN["expired"].own),
    "root and future": (ROOT, SHOWN["future"].own),
}

# For each level, all pairs of (shown, trusted) that are accepted; every other one is refused.
BY_CHAIN = {("chain", "root"), ("chain", "root and leaf"), ("self", "self")}
BY_CHAIN |= {("chain", "root and expired"), ("chain", "root and future")}
ACCEPTED = {
    1: BY_CHAIN,
    2: BY_CHAIN,
    3: {("chain", "root and leaf"), ("self", "self")},
    4: {
        *((name, trusted) for name in ("chain", "leaf") for trusted in ("chain", "leaf", "root and leaf")),
        ("self", "self"),
        ("forged", "forged"),
        ("by no authority", "by no authority"),
    },
}

CASES = [(level, shown, trusted) for level in ACCEPTED for shown in SHOWN for trusted in TRUSTED]


def verified(
    folder: Path,
    shown: Shown | None,
    trusted: Sequence[Identity],
    *options: str,
    client: bool,
    version: str = TLS13,
) -> Pair:
    """A handshake in which one role, the client's or the server's, verifies what the other shows.

    Without anything trusted there is no CAfile.
    """
    verifying = [version, *options]
    if trusted:
        verifying.append(f"CAfile = {write_trust(folder / 'trust.pem', *trusted)}")
    showing = [version]
    if shown is not None:
        showing.append(f"cert = {write_identity(folder / 'shown.pem', shown.own, *shown.chain)}")
    if client:
        return Pair(context(*verifying, client=True), context(*showing)).shake_hands()
    verifying.append(f"cert = {write_identity(folder / 'own.pem', SELF_SIGNED)}")
    return Pair(context(*showing, client=True), context(*verifying)).shake_hands()


def outcomes(pair: Pair, *, client: bool) -> set[Outcome]:
    return {finding.outcome for finding in (pair.client if client else pair.server).findings}


@pytest.mark.parametrize("client", [True, False], ids=["of a server", "of a client"])
@pytest.mark.parametrize(("level", "shown", "trusted"), CASES)
def test_the_matrix_of_levels(tmp_path: Path, level: int, shown: str, trusted: str, client: bool) -> None:
    pair = verified(tmp_path, SHOWN[shown], TRUSTED[trusted], f"verify = {level}", client=client)
    expected = (shown, trusted) in ACCEPTED[level]
    assert pair.accepted is expected
    assert (Outcome.REJECTED in outcomes(pair, client=client)) is not expected
    assert (Outcome.ACCEPTED in outcomes(pair, client=client)) is expected


@VERSIONS
@pytest.mark.parametrize("client", [True, False], ids=["of a server", "of a client"])
def test_an_extended_key_usage_for_the_other_role_is_refused(
    tmp_path: Path, version: str, client: bool
) -> None:
    wrong, right = (CLIENT_ONLY, SERVER_ONLY) if client else (SERVER_ONLY, CLIENT_ONLY)
    for usage, expected in ((right, True), (wrong, False)):
        shown = certify(common_name("leaf"), usage, issuer=ROOT)
        for trusted, level in (((ROOT,), 2), ((ROOT, shown), 3), ((shown,), 4)):
            pair = verified(
                tmp_path, Shown(shown), trusted, f"verify = {level}", client=client, version=version
            )
            assert pair.accepted is expected, (usage, level)


@VERSIONS
@pytest.mark.parametrize("client", [True, False], ids=["of a server", "of a client"])
def test_a_pinned_key_needs_no_authority_but_time_and_purpose(
    tmp_path: Path, version: str, client: bool
) -> None:
    wrong, right = (CLIENT_ONLY, SERVER_ONLY) if client else (SERVER_ONLY, CLIENT_ONLY)
    cases = [
        (certify(common_name("leaf"), right, issuer=ROOT), True),
        (certify(common_name("self"), right), True),
        (certify(common_name("leaf"), wrong, issuer=ROOT), False),
        (certify(common_name("self"), wrong), False),
        (certify(common_name("old"), right, starts_in=-20, ends_in=-5), False),
        (certify(common_name("new"), right, starts_in=5), False),
    ]
    for shown, expected in cases:
        key = shown.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pin = f"allowSPKI = {hashlib.sha256(key).hexdigest()}"
        pair = verified(tmp_path, Shown(shown), (), pin, client=client, version=version)
        assert pair.accepted is expected
        other = f"allowSPKI = {'ab' * 32}"
        assert not verified(tmp_path, Shown(shown), (), other, client=client, version=version).accepted


@VERSIONS
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["verify = 0"], True),
        (["verify = 1"], True),
        (["verify = 2"], False),
        (["verify = 3"], False),
        (["verify = 4"], False),
        (["verifyChain = yes"], False),
        (["verifyPeer = yes"], False),
        (["verifyChain = yes", "requireCert = no"], True),
        (["verifyPeer = yes", "requireCert = no"], True),
        (["requireCert = yes"], False),
    ],
)
def test_a_client_without_a_certificate(
    tmp_path: Path, version: str, options: list[str], expected: bool
) -> None:
    pair = verified(tmp_path, None, (ROOT,), *options, client=False, version=version)
    assert pair.accepted is expected
    if not expected:
        assert "peer did not return a certificate" in str(pair.server.failure)


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("options", [["verify = 0"], ["requireCert = yes"]])
def test_where_nothing_is_asked_of_it_any_certificate_will_do(
    tmp_path: Path, shown: str, options: list[str]
) -> None:
    for client in (True, False):
        pair = verified(tmp_path, SHOWN[shown], (INTERMEDIATE,), *options, client=client)
        assert pair.accepted, (pair.client.failure, pair.server.failure)


@VERSIONS
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["checkHost = leaf.test"], True),
        (["checkHost = other.test", "checkHost = leaf.test"], True),
        (["checkHost = other.test", "checkIP = 192.0.2.1"], False),
        (["checkEmail = a@leaf.test"], False),
    ],
)
def test_the_peers_name_is_checked(tmp_path: Path, version: str, options: list[str], expected: bool) -> None:
    for verify in ("verifyChain = yes", "verifyPeer = yes"):
        trusted = (ROOT,) if "Chain" in verify else (LEAF,)
        pair = verified(tmp_path, SHOWN["chain"], trusted, verify, *options, client=True, version=version)
        assert pair.accepted is expected
        if not expected:
            assert any("checkHost" in finding.text for finding in pair.client.findings)


def test_a_name_in_a_certificate_above_the_leaf_does_not_count(tmp_path: Path) -> None:
    above = certify(common_name("above.test"), x509.BasicConstraints(ca=True, path_length=None), issuer=ROOT)
    leaf = certify(common_name("leaf.test"), issuer=above)
    options = ("verify = 2", "checkHost = above.test")
    assert not verified(tmp_path, Shown(leaf, (above,)), (ROOT,), *options, client=True).accepted


@VERSIONS
def test_the_refused_peer_is_told(tmp_path: Path, version: str) -> None:
    pair = verified(tmp_path, SHOWN["forged"], (ROOT,), "verify = 2", client=True, version=version)
    assert "certificate verify failed" in str(pair.client.failure)
    failure = pair.server.failure or pair.server.engine.failure
    if failure is None:
        pair.server.drain()
        failure = pair.server.engine.failure
    assert "alert" in str(failure)


def test_a_finding_says_depth_and_subject(tmp_path: Path) -> None:
    pair = verified(tmp_path, SHOWN["expired"], (ROOT,), "verify = 2", client=True)
    texts = [finding.text for finding in pair.client.findings]
    assert any("certificate has expired" in text for text in texts)
    assert "Rejected by CERT at depth=0: CN=expired" in texts


def test_a_name_that_python_cannot_decode_is_ignored_where_all_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(with_raw_subject(LATIN_1_NAME, ROOT))
    for options in (["verify = 0"], ["verify = 2"]):
        pair = verified(tmp_path, shown, (ROOT,), *options, client=False)
        assert pair.accepted, pair.server.failure
    assert capfd.readouterr().err == ""


def test_an_alternative_name_that_cannot_be_decoded_is_no_match_and_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = x509.UnrecognizedExtension(
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("30058203fffefd")
    )
    shown = Shown(certify(common_name("leaf.test"), damaged, issuer=ROOT))
    pair = verified(tmp_path, shown, (ROOT,), "verify = 2", "checkHost = leaf.test", client=True)
    assert not pair.accepted
    assert outcomes(pair, client=True) == {Outcome.REJECTED}
    assert capfd.readouterr().err == ""


def hashed(folder: Path, identity: Identity, number: int = 0) -> Path:
    """A file in `folder` under the name by which OpenSSL looks for a certificate."""
    der = identity.certificate.subject.public_bytes()
    name = lib.d2i_X509_NAME(ffi.NULL, ffi.new("unsigned char *[]", [ffi.from_buffer(der)]), len(der))
    subject_hash = lib.X509_NAME_hash(ffi.gc(name, lib.X509_NAME_free))
    return write_trust(folder / f"{subject_hash:08x}.{number}", identity)


def by_directory(folder: Path, shown: Shown, *options: str) -> bool:
    showing = context(f"cert = {write_identity(folder / 'shown.pem', shown.own, *shown.chain)}")
    directory = f"CApath = {folder / 'ca'}"
    return Pair(context(*options, directory, client=True), showing).shake_hands().accepted


def test_a_directory_serves_for_chains_and_for_pins(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    assert not by_directory(tmp_path, SHOWN["chain"], "verify = 2")
    assert not by_directory(tmp_path, SHOWN["chain"], "verify = 4")
    hashed(tmp_path / "ca", ROOT)
    assert by_directory(tmp_path, SHOWN["chain"], "verify = 2")
    assert not by_directory(tmp_path, SHOWN["chain"], "verify = 3")
    assert not by_directory(tmp_path, SHOWN["chain"], "verify = 4")
    hashed(tmp_path / "ca", LEAF)
    assert by_directory(tmp_path, SHOWN["chain"], "verify = 3")
    assert by_directory(tmp_path, SHOWN["chain"], "verify = 4")


def test_a_pin_stands_behind_others_of_the_same_subject(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    hashed(tmp_path / "ca", certify(common_name("leaf")), 0)
    hashed(tmp_path / "ca", certify(common_name("leaf"), issuer=ROOT), 1).write_bytes(b"no certificate")
    assert not by_directory(tmp_path, SHOWN["leaf"], "verify = 4")
    hashed(tmp_path / "ca", LEAF, 2)
    assert by_directory(tmp_path, SHOWN["leaf"], "verify = 4")


@VERSIONS
def test_a_fault_that_is_gone_past_leaves_no_error_behind(tmp_path: Path, version: str) -> None:
    """It would be read as another connection's: there is one queue for all of them."""
    server = context(
        version,
        "verifyChain = yes",
        "redirect = 127.0.0.1:1",
        f"CAfile = {write_trust(tmp_path / 'trust.pem', ROOT)}",
        f"cert = {write_identity(tmp_path / 'own.pem', SELF_SIGNED)}",
    )
    cert = write_identity(tmp_path / "shown.pem", SHOWN["forged"].own)
    pair = Pair(context(version, f"cert = {cert}", client=True), server)
    answer = pair.server.step(pair.client.step(b""))
    pair.server.engine.feed(give(pair.server.engine, pair.client.step(answer)))
    assert pair.server.engine.handshake()
    assert take_errors() == ()


def test_what_is_kept_of_a_peer_does_not_grow_as_it_renegotiates(tmp_path: Path) -> None:
    cert = write_identity(tmp_path / "shown.pem", LEAF)
    anew = "options = NO_SESSION_RESUMPTION_ON_RENEGOTIATION"
    pair = Pair(
        context(TLS12, "verify = 0", client=True),
        context(TLS12, f"cert = {cert}", anew, "sessionResume = no"),
    ).shake_hands()
    findings = pair.client.findings
    assert {finding.outcome for finding in findings} == {Outcome.IGNORED, Outcome.ACCEPTED}
    server = pair.server.engine.pointer
    for _ in range(2):
        assert lib.SSL_renegotiate(server) == lib.SSL_do_handshake(server) == 1
        while asked := output(pair.server.engine):
            assert pair.client.decrypt(asked) == b""
            assert pair.server.decrypt(output(pair.client.engine)) == b""
    assert lib.SSL_total_renegotiations(server) == 2
    assert pair.client.findings == findings
