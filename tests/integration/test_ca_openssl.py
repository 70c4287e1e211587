"""What `culvert ca` writes, as openssl reads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .daemon import command, run
from .harness import require


def ca(folder: Path, *arguments: str) -> str:
    """What `culvert ca ARGUMENTS` prints in a folder; it must succeed."""
    done = run(command("ca", *arguments), folder=folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def openssl(folder: Path, *arguments: str, status: int = 0) -> str:
    """What openssl says in a folder."""
    done = run([require("openssl"), *arguments], folder=folder)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def verify(folder: Path, file: str, *options: str, status: int = 0) -> str:
    return openssl(folder, "verify", "-x509_strict", *options, "-CAfile", "ca/ca.pem", file, status=status)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_certificates_verify_for_their_purpose_alone(tmp_path: Path, kind: str) -> None:
    ca(tmp_path, "init", "--key", kind)
    for arguments in (["server.example", "--server"], ["client.example", "--client"], ["both.example"]):
        ca(tmp_path, "issue", "--key", kind, *arguments)
    purposes = {"server": "sslserver", "client": "sslclient"}
    for name, own in purposes.items():
        for purpose in purposes.values():
            status = 0 if purpose == own else 2
            verify(tmp_path, f"{name}.example.pem", "-purpose", purpose, status=status)
            verify(tmp_path, "both.example.pem", "-purpose", purpose)
    public = openssl(tmp_path, "x509", "-in", "both.example.pem", "-noout", "-pubkey")
    assert openssl(tmp_path, "pkey", "-in", "both.example.key", "-pubout") == public
    assert openssl(tmp_path, "pkey", "-in", "ca/ca.key", "-check", "-noout") == "Key is valid\n"


def test_every_kind_of_name_is_where_openssl_looks_for_it(tmp_path: Path) -> None:
    ca(tmp_path, "init")
    names = (
        "db.example.com",
        "*.db.example.com",
        "10.0.0.1",
        "2001:db8::1",
        "a@example.com",
        "spiffe://example.com/db",
    )
    ca(tmp_path, "issue", *names)
    file = "db.example.com.pem"
    for option, good, bad in (
        ("-verify_hostname", "x.db.example.com", "example.com"),
        ("-verify_ip", "10.0.0.1", "10.0.0.2"),
        ("-verify_ip", "2001:db8::1", "2001:db8::2"),
        ("-verify_email", "a@example.com", "b@example.com"),
    ):
        verify(tmp_path, file, option, good)
        verify(tmp_path, file, option, bad, status=2)
    text = openssl(tmp_path, "x509", "-in", file, "-noout", "-text")
    assert "URI:spiffe://example.com/db\n" in text
    serial = re.findall(r"serial +(\w+)", ca(tmp_path, "show", "db.example.com"))
    assert openssl(tmp_path, "x509", "-in", file, "-noout", "-serial") == f"serial={serial[0]}\n"


PERMITTED = {
    "example.com": ["db.example.com", "*.example.com"],
    "10.0.0.0/8": ["10.0.0.1"],
    "2001:db8::/32": ["2001:db8::1"],
    "@example.com": ["a@example.com"],
    "@.example.net": ["a@b.example.net"],
    "a@example.org": ["a@example.org"],
    "//example.com": ["spiffe://example.com/db"],
    "//.example.net": ["https://b.example.net/"],
}
FOREIGN = ("DNS:db.example.org", "IP:192.0.2.1", "email:b@example.org", "URI:spiffe://example.org/db")


@pytest.mark.parametrize("permitted", [["example.com"], ["//example.com"], [*PERMITTED]], ids=len)
def test_openssl_and_culvert_agree_on_what_a_ca_may_issue(tmp_path: Path, permitted: list[str]) -> None:
    """Culvert's refusal is a courtesy: a certificate signed behind its back must fail as well."""
    ca(tmp_path, "init", *(f"--permit={subtree}" for subtree in permitted))
    ca(tmp_path, "issue", *(name for subtree in permitted for name in PERMITTED[subtree]), "--bundle")
    (issued,) = tmp_path.glob("*.pem")
    verify(tmp_path, issued.name)
    refused = run(command("ca", "issue", *(name.partition(":")[2] for name in FOREIGN)), folder=tmp_path)
    assert refused.returncode == 1
    assert f"This CA is not permitted to issue for {', '.join(FOREIGN)} " in refused.stderr
    forge = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/"]
    for name in FOREIGN:
        extension = ["-addext", f"subjectAltName=critical,{name}", "-CA", "ca/ca.pem", "-CAkey", "ca/ca.key"]
        openssl(tmp_path, *forge, *extension, "-keyout", "forged.key", "-out", "forged.pem")
        said = openssl(tmp_path, "verify", "-CAfile", "ca/ca.pem", "forged.pem", status=2)
        assert re.search("(permitted|excluded) subtree violation", said), said


def test_an_address_alone_passes_the_constraints_on_dns_names(tmp_path: Path) -> None:
    """OpenSSL would take the common name 10.0.0.1 for a DNS name."""
    ca(tmp_path, "init", "--permit", "example.com", "--permit", "10.0.0.0/8")
    ca(tmp_path, "issue", "10.0.0.1")
    verify(tmp_path, "10.0.0.1.pem", "-verify_ip", "10.0.0.1")
    key = ["-CA", "ca/ca.pem", "-CAkey", "ca/ca.key", "-key", "10.0.0.1.key", "-out", "plain.pem"]
    name = ["-subj", "/CN=10.0.0.1", "-addext", "subjectAltName=IP:10.0.0.1"]
    openssl(tmp_path, "req", "-x509", *name, *key)
    said = openssl(tmp_path, "verify", "-CAfile", "ca/ca.pem", "plain.pem", status=2)
    assert "permitted subtree violation" in said


def test_a_revoked_certificate_fails_and_the_others_do_not(tmp_path: Path) -> None:
    ca(tmp_path, "init")
    ca(tmp_path, "issue", "good.example")
    ca(tmp_path, "issue", "bad.example")
    ca(tmp_path, "crl")
    check = ["-crl_check", "-CRLfile", "ca/crl.pem"]
    verify(tmp_path, "bad.example.pem", *check)
    ca(tmp_path, "revoke", "bad.example", "--reason", "keycompromise")
    ca(tmp_path, "crl", "--days", "7")
    verify(tmp_path, "good.example.pem", *check)
    assert "certificate revoked" in verify(tmp_path, "bad.example.pem", *check, status=2)
    text = openssl(tmp_path, "crl", "-in", "ca/crl.pem", "-noout", "-text", "-CAfile", "ca/ca.pem")
    assert "verify OK" in text
    assert re.search(r"CRL Number: \n +2\n", text)
    assert "Key Compromise" in text


def test_the_trust_folder_is_a_capath_and_a_crlpath(tmp_path: Path) -> None:
    ca(tmp_path, "init")
    ca(tmp_path, "issue", "bad.example")
    ca(tmp_path, "revoke", "bad.example")
    ca(tmp_path, "crl")
    openssl(tmp_path, "verify", "-no-CAfile", "-CApath", "ca/trust", "bad.example.pem")
    check = ["verify", "-no-CAfile", "-crl_check", "-CApath", "ca/trust", "bad.example.pem"]
    assert "certificate revoked" in openssl(tmp_path, *check, status=2)


def test_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    ca(tmp_path, "init")
    running = [
        subprocess.Popen(command("ca", "issue", f"{number}.example"), cwd=tmp_path, stdout=subprocess.DEVNULL)
        for number in range(4)
    ]
    assert [process.wait(30) for process in running] == [0] * 4
    listed = ca(tmp_path, "show").splitlines()
    assert sorted(line.split()[-1] for line in listed[-4:]) == [f"{number}.example" for number in range(4)]
