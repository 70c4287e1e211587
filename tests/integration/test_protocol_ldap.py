"""StartTLS against slapd, with ldapsearch in front of a client tunnel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from .certificates import Certificates
from .foreground import Slapd
from .harness import PATIENCE, Culvert, require
from .peers import Peers

Start = Callable[..., Culvert]


@pytest.fixture(scope="module")
def slapd(certificates: Certificates) -> Iterator[Slapd]:
    with Slapd(certificates.server) as server:
        yield server


def tunnel(port: int, certificates: Certificates) -> str:
    return (
        f"[ldap]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\nprotocol = ldap\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
    )


def search(port: int) -> subprocess.CompletedProcess[str]:
    """The root entry's attributes."""
    command = ["-x", "-LLL", "-H", f"ldap://127.0.0.1:{port}", "-o", "nettimeout=10", "-s", "base", "-b", ""]
    return subprocess.run(
        [require("ldapsearch"), *command, "supportedExtension"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_ldapsearch_comes_through_where_it_may_not_come_in_clear(
    slapd: Slapd, culvert: Start, certificates: Certificates
) -> None:
    assert "confidentiality required" in search(slapd.port).stderr
    daemon = culvert(tunnel(slapd.port, certificates))
    ran = search(daemon.port("ldap"))
    assert "supportedExtension: 1.3.6.1.4.1.1466.20037" in ran.stdout, ran.stderr
    slapd.log.wait("STARTTLS")


def test_a_server_without_tls_says_so_in_its_own_words(culvert: Start, certificates: Certificates) -> None:
    with Slapd(None) as server:
        daemon = culvert(tunnel(server.port, certificates))
        assert search(daemon.port("ldap")).returncode != 0
        daemon.await_log(
            r"LOG3.*Negotiation failed for 127\.0\.0\.1:\d+.*: the server refuses StartTLS: \w+ \(\d+\)"
        )
        assert len(daemon.log.find("refuses StartTLS")) == 1


def test_an_answer_in_single_bytes_is_understood_and_what_follows_discarded(
    culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    listener = peers.listen()
    daemon = culvert(tunnel(listener.port, certificates))
    peers.dial(daemon.port("ldap"))
    server = listener.accept()
    assert server.recv(1024).startswith(b"\x30\x1d\x02\x01\x01\x77")
    answer = bytes.fromhex("300c02010178070a010004000400")
    for byte in answer[:-1]:
        server.send(bytes((byte,)))
    server.send(answer[-1:] + b"\x30\x05early")
    daemon.await_log(
        r"LOG4.*7 byte\(s\) that 127\.0\.0\.1:\d+ sent in clear, ahead of its turn, are discarded"
    )
    assert server.recv(1) == b"\x16"
