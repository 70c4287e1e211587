"""What `inspect` says of the files of a service, each fault by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from culvert import config
from culvert.errors import Diagnostic, Severity
from culvert.tls.inspection import FILE_LIMIT, inspect

from ..identities import NOW, Identity, issue, write


@pytest.fixture(scope="module")
def root() -> Identity:
    return issue("root")


@pytest.fixture(scope="module")
def leaf(root: Identity) -> Identity:
    return issue("leaf", root)


def inspect_server(folder: Path, options: str, ca_path: Path | None = None) -> list[Diagnostic]:
    """The findings on a server service with these options, of which each stands on a line of its own."""
    text = f"[tunnel]\naccept = 127.0.0.1:0\nconnect = 1\n{options}\n"
    service = config.loads(text, str(folder / "server.conf")).services[0]
    return list(inspect(service, ca_path, None, NOW))


def only(findings: list[Diagnostic], severity: Severity, line: str, words: str) -> Diagnostic:
    """The one finding there is, which has this severity, stands at this line and holds these words."""
    assert len(findings) == 1, findings
    finding = findings[0]
    assert finding.severity is severity
    assert finding.location is not None
    assert finding.location.text == line
    assert finding.service == "tunnel"
    assert words in finding.message
    return finding


def test_a_good_identity_in_one_file_has_no_finding(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.pem", leaf.cert_pem + leaf.key_pem())
    assert inspect_server(tmp_path, f"cert = {cert}") == []


def test_a_good_chain_with_its_key_apart_has_no_finding(
    tmp_path: Path, root: Identity, leaf: Identity
) -> None:
    cert = write(tmp_path / "chain.pem", leaf.cert_pem + root.cert_pem, 0o644)
    key = write(tmp_path / "leaf.key", leaf.key_pem())
    assert inspect_server(tmp_path, f"cert = {cert}\nkey = {key}") == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_open_is_a_warning(tmp_path: Path, leaf: Identity, mode: int) -> None:
    cert = write(tmp_path / "leaf.crt", leaf.cert_pem, 0o644)
    key = write(tmp_path / "leaf.key", leaf.key_pem(), mode)
    findings = inspect_server(tmp_path, f"cert = {cert}\nkey = {key}")
    finding = only(findings, Severity.WARNING, f"key = {key}", f"(mode {mode:04o})")
    assert finding.hint == f"chmod go= {key}"


def test_a_key_in_the_certificates_file_is_shown_at_its_line(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.pem", leaf.cert_pem + leaf.key_pem(), 0o644)
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.WARNING, f"cert = {cert}", "(mode 0644)")


@pytest.mark.parametrize(
    ("starts_in", "ends_in", "severity", "words"),
    [
        (-10, -1, Severity.WARNING, "expired on"),
        (-10, 29.5, Severity.WARNING, "in 29 day(s)"),
        (1, 90, Severity.WARNING, "is not valid before"),
    ],
)
def test_the_validity_of_a_certificate(
    tmp_path: Path, starts_in: float, ends_in: float, severity: Severity, words: str
) -> None:
    identity = issue("leaf", starts_in=starts_in, ends_in=ends_in)
    cert = write(tmp_path / "leaf.pem", identity.cert_pem + identity.key_pem())
    only(inspect_server(tmp_path, f"cert = {cert}"), severity, f"cert = {cert}", words)


def test_a_certificate_that_lasts_31_days_has_no_finding(tmp_path: Path) -> None:
    identity = issue("leaf", ends_in=31)
    cert = write(tmp_path / "leaf.pem", identity.cert_pem + identity.key_pem())
    assert inspect_server(tmp_path, f"cert = {cert}") == []


def test_an_expired_intermediate_is_a_warning(tmp_path: Path) -> None:
    intermediate = issue("intermediate", ends_in=-1)
    identity = issue("leaf", intermediate)
    chain = identity.cert_pem + intermediate.cert_pem + identity.key_pem()
    cert = write(tmp_path / "chain.pem", chain)
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.WARNING, f"cert = {cert}", "CN=intermediate")


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path, root: Identity, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.crt", leaf.cert_pem)
    key = write(tmp_path / "other.key", root.key_pem())
    findings = inspect_server(tmp_path, f"cert = {cert}\nkey = {key}")
    only(findings, Severity.ERROR, f"key = {key}", "is not that of CN=leaf")


def test_a_chain_in_the_wrong_order_is_named(tmp_path: Path, root: Identity, leaf: Identity) -> None:
    cert = write(tmp_path / "chain.pem", root.cert_pem + leaf.cert_pem)
    key = write(tmp_path / "leaf.key", leaf.key_pem())
    order, match = inspect_server(tmp_path, f"cert = {cert}\nkey = {key}")
    assert order.severity is Severity.WARNING
    assert "certificate 2 (CN=leaf) did not issue certificate 1 (CN=root)" in order.message
    assert match.severity is Severity.ERROR
    assert match.hint is not None
    assert "must come first" in match.hint


@pytest.mark.parametrize("option", ["cert", "key", "CAfile"])
def test_a_missing_file_is_named_at_its_option(tmp_path: Path, leaf: Identity, option: str) -> None:
    cert = write(tmp_path / "leaf.pem", leaf.cert_pem + leaf.key_pem())
    missing = f"{option} = {tmp_path / 'missing'}"
    options = missing if option == "cert" else f"cert = {cert}\n{missing}"
    findings = inspect_server(tmp_path, options)
    only(findings, Severity.ERROR, missing, f"{tmp_path / 'missing'} cannot be read: No such file")


def test_a_relative_path_that_leads_to_nothing_is_told_from_where(tmp_path: Path) -> None:
    (finding,) = inspect_server(tmp_path, "cert = missing.pem")
    assert finding.hint is not None
    assert str(Path.cwd()) in finding.hint


@pytest.mark.parametrize("content", [b"", b"nothing of the kind\n", b"\x00\xff" * 40])
def test_a_file_without_a_certificate_is_an_error(tmp_path: Path, leaf: Identity, content: bytes) -> None:
    cert = write(tmp_path / "empty.pem", content)
    key = write(tmp_path / "leaf.key", leaf.key_pem())
    findings = inspect_server(tmp_path, f"cert = {cert}\nkey = {key}")
    only(findings, Severity.ERROR, f"cert = {cert}", f"{cert} holds no certificate")


def test_a_certificate_in_der_form_gets_advice(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.der", leaf.certificate.public_bytes(Encoding.DER))
    key = write(tmp_path / "leaf.key", leaf.key_pem())
    findings = inspect_server(tmp_path, f"cert = {cert}\nkey = {key}")
    hint = only(findings, Severity.ERROR, f"cert = {cert}", "holds no certificate").hint
    assert hint is not None
    assert "openssl x509 -inform DER" in hint


def test_a_damaged_certificate_is_an_error(tmp_path: Path, leaf: Identity) -> None:
    damaged = leaf.cert_pem.replace(b"MII", b"AAA", 1)
    cert = write(tmp_path / "leaf.pem", damaged + leaf.key_pem())
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.ERROR, f"cert = {cert}", "or a damaged one")


def test_a_file_without_a_key_is_an_error(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.crt", leaf.cert_pem, 0o644)
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.ERROR, f"cert = {cert}", "no private key")


def test_a_damaged_key_is_an_error(tmp_path: Path, leaf: Identity) -> None:
    damaged = leaf.key_pem().replace(b"\nMI", b"\nAA", 1)
    cert = write(tmp_path / "leaf.pem", leaf.cert_pem + damaged)
    findings = inspect_server(tmp_path, f"cert = {cert}")
    only(findings, Severity.ERROR, f"cert = {cert}", "the private key cannot be read")


def test_an_encrypted_key_is_noted_and_not_asked_for(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.pem", leaf.cert_pem + leaf.key_pem("secret"))
    findings = inspect_server(tmp_path, f"cert = {cert}")
    only(findings, Severity.NOTE, f"cert = {cert}", "encrypted and was not checked")


def test_pkcs12_is_known_by_its_content(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.pem", leaf.pkcs12())
    assert inspect_server(tmp_path, f"cert = {cert}") == []


def test_what_pkcs12_holds_is_judged(tmp_path: Path) -> None:
    cert = write(tmp_path / "leaf.p12", issue("leaf", ends_in=-1).pkcs12())
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.WARNING, f"cert = {cert}", "expired on")


def test_encrypted_pkcs12_is_noted(tmp_path: Path, leaf: Identity) -> None:
    cert = write(tmp_path / "leaf.p12", leaf.pkcs12("secret"))
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.NOTE, f"cert = {cert}", "not checked")


def test_expired_trust_is_a_warning(tmp_path: Path, root: Identity) -> None:
    old = issue("old root", ends_in=-1)
    bundle = write(tmp_path / "ca.pem", root.cert_pem + old.cert_pem)
    findings = inspect_server(tmp_path, f"client = yes\nCAfile = {bundle}\nverifyChain = yes")
    finding = only(findings, Severity.WARNING, f"CAfile = {bundle}", "1 of its 2 trusted certificate(s)")
    assert "CN=old root" in finding.message


def test_a_trust_folder_that_is_none_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    options = f"client = yes\nCApath = {folder}\nverifyChain = yes"
    findings = inspect_server(tmp_path, options, ca_path=folder)
    only(findings, Severity.WARNING, f"CApath = {folder}", "cannot be searched: No such file")


def test_a_named_pipe_is_noted_and_does_not_hold_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    findings = inspect_server(tmp_path, f"cert = {tmp_path / 'pipe'}")
    only(findings, Severity.NOTE, f"cert = {tmp_path / 'pipe'}", "no ordinary file")


def test_a_file_without_end_is_an_error(tmp_path: Path) -> None:
    cert = tmp_path / "huge"
    with cert.open("wb") as file:
        file.truncate(FILE_LIMIT + 1)
    only(inspect_server(tmp_path, f"cert = {cert}"), Severity.ERROR, f"cert = {cert}", "is larger than")


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path: Path) -> None:
    findings = inspect_server(tmp_path, f"cert = {tmp_path}")
    only(findings, Severity.ERROR, f"cert = {tmp_path}", "cannot be read: Is a directory")
