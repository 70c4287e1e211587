"""`config = COMMAND:VALUE`: what OpenSSL's own configuration commands set, and what is refused; `fips`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import Culvert
from .openssl import Visit, s_client
from .pki import Pki
from .refusals import refuse

Start = Callable[..., Culvert]


def section(pki: Pki, *commands: str, more: str = "") -> str:
    """A server service with these commands."""
    leaf = pki.kinds["good"]
    text = (
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n{more}"
    )
    return text + "".join(f"config = {command}\n" for command in commands)


def visit(daemon: Culvert, *arguments: str) -> Visit:
    """A visit of openssl's client that prints what was negotiated."""
    return s_client(daemon.port("s"), *arguments, quiet=False)


SETTINGS = {
    "CipherString": (
        "CipherString:ECDHE-ECDSA-CHACHA20-POLY1305",
        ["-tls1_2"],
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    "Ciphersuites": (
        "Ciphersuites:TLS_CHACHA20_POLY1305_SHA256",
        ["-tls1_3"],
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    "Groups": ("Groups:P-384", [], "Server Temp Key: ECDH, (secp384r1|P-384)"),
    "Curves": ("Curves:P-521", [], "Server Temp Key: ECDH, (secp521r1|P-521)"),
    "SignatureAlgorithms": ("SignatureAlgorithms:ECDSA+SHA256", [], "Peer signing digest: SHA256"),
    "MinProtocol": ("MinProtocol:TLSv1.3", [], "TLSv1.3"),
    "MaxProtocol": ("MaxProtocol:TLSv1.2", [], "TLSv1.2"),
    "lower-case": ("maxprotocol:TLSv1.2", [], "TLSv1.2"),
}
"""The command, more arguments of the client, and what it then sees."""


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_command_sets(culvert: Start, pki: Pki, setting: str) -> None:
    command, arguments, seen = SETTINGS[setting]
    found = visit(culvert(section(pki, command)), *arguments)
    assert "welcome" in found.received
    assert re.search(seen, found.received), found.received


SHUT = {
    "CipherString": (
        "CipherString:ECDHE-ECDSA-CHACHA20-POLY1305",
        ["-tls1_2", "-cipher", "AES256-GCM-SHA384"],
    ),
    "Ciphersuites": (
        "Ciphersuites:TLS_CHACHA20_POLY1305_SHA256",
        ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ),
    "Groups": ("Groups:P-384", ["-tls1_3", "-groups", "X25519"]),
    "SignatureAlgorithms": ("SignatureAlgorithms:ECDSA+SHA256", ["-tls1_3", "-sigalgs", "ECDSA+SHA512"]),
    "MinProtocol": ("MinProtocol:TLSv1.3", ["-tls1_2"]),
    "MaxProtocol": ("MaxProtocol:TLSv1.2", ["-tls1_3"]),
}
"""The command, and a client that it shuts out."""


@pytest.mark.parametrize("setting", SHUT)
def test_whom_a_command_shuts_out(culvert: Start, pki: Pki, setting: str) -> None:
    command, arguments = SHUT[setting]
    daemon = culvert(section(pki, command))
    assert s_client(daemon.port("s"), *arguments).received == ""
    assert not daemon.log.find("TLS accepted")


@pytest.mark.parametrize(
    ("command", "offered"),
    [("Options:-SessionTicket", False), ("Options:SessionTicket", True)],
)
def test_options(culvert: Start, pki: Pki, command: str, offered: bool) -> None:
    """The names are those of OpenSSL's configuration files, where - takes away."""
    found = visit(culvert(section(pki, command)), "-tls1_2")
    assert "welcome" in found.received
    assert ("TLS session ticket:" in found.received) is offered


def test_the_command_counts_over_the_option(culvert: Start, pki: Pki) -> None:
    daemon = culvert(section(pki, "MaxProtocol:TLSv1.2", more="sslVersionMax = TLSv1.3\n"))
    assert s_client(daemon.port("s"), version="TLSv1.3").received == ""
    assert s_client(daemon.port("s"), version="TLSv1.2").received == "welcome\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("Certificate:/tmp/x.pem", "Certificate"),
        ("VerifyMode:Peer", "VerifyMode"),
        ("DHParameters:/tmp/x.pem", "DHParameters"),
        ("NoSuchCommand:1", "NoSuchCommand"),
        ("CipherString", "CipherString"),
        ("CipherString:NO-SUCH-CIPHER", "NO-SUCH-CIPHER"),
        ("Ciphersuites:NO_SUCH_SUITE", "NO_SUCH_SUITE"),
        ("Groups:P-1", "P-1"),
        ("SignatureAlgorithms:nonsense", "nonsense"),
        ("MinProtocol:TLSv9", "TLSv9"),
        ("Options:NoSuchOption", "NoSuchOption"),
    ],
)
def test_a_command_that_cannot_be_done_is_refused(pki: Pki, tmp_path: Path, command: str, said: str) -> None:
    refuse(tmp_path, section(pki, command), rf"culvert\.conf:\d+: .*{said}")


def test_fips_says_what_is_missing(pki: Pki, tmp_path: Path) -> None:
    """The OpenSSL of the wheels has no FIPS provider; `yes` must never be a word without meaning."""
    refuse(tmp_path, section(pki), r"culvert\.conf:\d+: .*fips.*(?i:provider)", options="fips = yes\n")


def test_fips_no_is_the_default(culvert: Start, pki: Pki) -> None:
    daemon = culvert(section(pki), options="fips = no\n")
    assert s_client(daemon.port("s")).received == "welcome\n"
