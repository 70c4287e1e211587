"""The context: what a service's options come to, and what OpenSSL says of those that it refuses."""

from __future__ import annotations

import gc
import os
import stat
import weakref
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from culvert.errors import ConfigurationError, Diagnostic
from culvert.tls.engine import Scratch
from culvert.tls.failure import TlsError, take_errors

from ..identities import write
from .certificates import certify, common_name, write_identity
from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context


def refused(*options: str) -> Diagnostic:
    """The one finding on a server with these options."""
    with pytest.raises(ConfigurationError) as failure:
        context(*options)
    (finding,) = failure.value.diagnostics
    assert finding.service == "tunnel"
    assert take_errors() == ()
    return finding


def line(finding: Diagnostic) -> str:
    assert finding.location is not None
    return finding.location.text


@pytest.mark.parametrize("option", ["ciphers", "ciphersuites", "curves"])
def test_a_name_that_openssl_does_not_know_is_shown_with_its_line(authority: Authority, option: str) -> None:
    finding = refused(authority.server_cert, f"{option} = NOPE")
    assert line(finding) == f"{option} = NOPE"
    assert "NOPE" in finding.message


def weak_identity(path: Path) -> Path:
    """A self-signed certificate and its key, of 1024 bits."""
    key = rsa.generate_private_key(65537, 1024)
    draft = certify(common_name("weak")).certificate
    builder = x509.CertificateBuilder(
        draft.issuer,
        draft.subject,
        key.public_key(),
        draft.serial_number,
        draft.not_valid_before_utc,
        draft.not_valid_after_utc,
    )
    certificate = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return write(path, certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_why_a_certificate_is_refused_is_said(tmp_path: Path) -> None:
    path = weak_identity(tmp_path / "weak.pem")
    finding = refused(f"cert = {path}")
    assert line(finding) == f"cert = {path}"
    assert "key too small" in str(finding)


def test_a_lower_security_level_takes_a_weak_key(tmp_path: Path) -> None:
    server = context(f"cert = {weak_identity(tmp_path / 'weak.pem')}", "securityLevel = 0")
    assert Pair(context("securityLevel = 0", client=True), server).shake_hands().accepted


def test_a_file_that_trusts_nobody_is_refused(authority: Authority, tmp_path: Path) -> None:
    path = write(tmp_path / "empty.pem", b"no certificate\n")
    finding = refused(authority.server_cert, f"CAfile = {path}", "verify = 2")
    assert line(finding) == f"CAfile = {path}"
    assert "https:" not in finding.message, "advice on a library that the operator has never heard of"


def test_a_file_that_is_not_there_is_refused(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    finding = refused(authority.server_cert, f"CAfile = {path}", "verify = 2")
    assert line(finding) == f"CAfile = {path}"
    assert "No such file" in finding.message


@pytest.mark.parametrize(
    ("client_options", "server_options", "agreed"),
    [
        (["sslVersionMax = TLSv1.2"], [], "TLSv1.2"),
        ([], ["sslVersionMax = TLSv1.2"], "TLSv1.2"),
        ([], [], "TLSv1.3"),
        (["options = NO_TLSv1_3"], [], "TLSv1.2"),
        ([TLS12], [TLS13], None),
    ],
)
def test_the_version_is_the_newest_in_common(
    authority: Authority, client_options: list[str], server_options: list[str], agreed: str | None
) -> None:
    pair = Pair(context(*client_options, client=True), context(authority.server_cert, *server_options))
    if pair.shake_hands().accepted:
        assert pair.client.engine.version == pair.server.engine.version == agreed
    else:
        assert agreed is None


@pytest.mark.parametrize(
    ("option", "version", "cipher"),
    [
        ("ciphers = ECDHE-ECDSA-CHACHA20-POLY1305", TLS12, "ECDHE-ECDSA-CHACHA20-POLY1305"),
        ("ciphersuites = TLS_CHACHA20_POLY1305_SHA256", TLS13, "TLS_CHACHA20_POLY1305_SHA256"),
        ("ciphersuites = TLS_AES_128_GCM_SHA256", TLS13, "TLS_AES_128_GCM_SHA256"),
    ],
)
def test_the_cipher_is_the_one_asked_for(
    authority: Authority, option: str, version: str, cipher: str
) -> None:
    pair = Pair(context(version, option, client=True), context(version, authority.server_cert)).shake_hands()
    assert pair.client.engine.cipher[0] == pair.server.engine.cipher[0] == cipher
    assert pair.client.engine.cipher[1] in (128, 256)


@pytest.mark.parametrize(("curves", "group"), [("X25519", "x25519"), ("P-384", "secp384r1")])
def test_the_group_is_the_one_asked_for(authority: Authority, curves: str, group: str) -> None:
    pair = Pair(context(f"curves = {curves}", client=True), context(authority.server_cert)).shake_hands()
    assert pair.server.engine.group == pair.client.engine.group == group


def test_a_chain_is_sent_whole(tmp_path: Path, authority: Authority) -> None:
    above = certify(
        common_name("above"), x509.BasicConstraints(ca=True, path_length=None), issuer=authority.root
    )
    leaf = certify(common_name("leaf"), issuer=above)
    server = context(f"cert = {write_identity(tmp_path / 'chain.pem', leaf, above)}")
    assert Pair(context(authority.trust, "verify = 2", client=True), server).shake_hands().accepted


def test_a_name_that_cannot_be_sent_ends_the_connection_and_nothing_else(authority: Authority) -> None:
    client = context(client=True)
    for name in ("a..b", "x" * 64, ".".join(["x" * 60] * 5)):
        with pytest.raises(TlsError):
            client.engine(Scratch(), name)
        assert take_errors() == ()
    assert Pair(client, context(authority.server_cert), "server.test").shake_hands().accepted


def test_a_context_forgets_the_connections_that_are_over(authority: Authority) -> None:
    server = context(authority.server_cert, authority.trust, "verify = 2")
    pair = Pair(context(authority.client_cert, client=True), server).shake_hands()
    verification = server.verification(pair.server.engine)
    assert verification is not None
    assert verification.passed
    reference = weakref.ref(pair.server.engine)
    del pair
    assert reference() is None
    fresh = server.engine(Scratch())
    found = server.verification(fresh)
    assert found is not None
    assert not found.passed


def test_a_context_is_freed_with_its_callback(authority: Authority) -> None:
    """A reload makes new contexts: the old ones must go."""
    server = context(authority.server_cert, authority.trust, "verify = 2")
    reference = weakref.ref(server)
    Pair(context(authority.client_cert, client=True), server).shake_hands()
    del server
    gc.collect()
    assert reference() is None


def test_a_key_log_that_is_no_file_keeps_its_mode(authority: Authority, tmp_path: Path) -> None:
    """As root, `keylog = /dev/null` would close it to everybody else."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o622)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        context(authority.server_cert, f"keylog = {pipe}")
    finally:
        os.close(reader)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o622
