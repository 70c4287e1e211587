"""What scanners find in a default server: nothing of severity medium or above, by testssl.sh and sslscan.

Both stay on this machine: testssl.sh asks no name server and calls nobody unless it is told to.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .certificates import Certificates
from .harness import Culvert, require

LIMIT = 150
"""Seconds for one run of a scanner, below the time that a test may take."""

pytestmark = pytest.mark.timeout(LIMIT + 30)

HARMLESS = {"OK", "INFO", "LOW", "DEBUG"}

EXCLUDED = {
    "engine_problem": "of the scanning openssl, which has no GOST engine",
    "cert_chain_of_trust": "the throw-away certificate is of an authority that no store knows",
    "cert_revocation": "the throw-away authority publishes neither CRL nor OCSP",
}
"""Findings that say nothing of Culvert, by their ids, and why. HTTP (-h, BREACH) is not asked about."""

CHECKS = {
    "categories": ["--standard"],
    "protocols": ["--protocols"],
    "defaults": ["--server-defaults"],
    "memory-leaks": ["--heartbleed", "--ccs-injection", "--ticketbleed"],
    "renegotiation": ["--renegotiation", "--compression", "--tls-fallback"],
    "weak-ciphers": ["--sweet32", "--beast", "--rc4"],
    "forward-secrecy": ["--pfs"],
    "oracles": ["--robot", "--lucky13", "--poodle"],
    "preference": ["--server-preference"],
    "weak-keys": ["--freak", "--logjam", "--drown"],
}
"""testssl.sh in runs that each fit their time."""


HELD = {"renegotiation"}
"""What is looked into on a connection that the server does not end: to be done in time is no proof."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Culvert]:
    """A server with every default; its page lets a scanner see that it got through."""
    folder = tmp_path_factory.mktemp("scanned")
    leaf = certificates.ca.leaf("scanned", days=250)
    page = folder / "page"
    page.write_text("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello\n")
    service = f"accept = 127.0.0.1:0\ncert = {leaf.cert}\nkey = {leaf.key}\nexec = /bin/cat\n"
    text = f"[s]\n{service}execArgs = cat {page}\n[held]\n{service}execArgs = cat {page} -\n"
    with Culvert(folder, text) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def port(server: Culvert) -> int:
    """Of the service that ends its connections."""
    return server.port("s")


@dataclass(frozen=True)
class Scan:
    """A run of testssl.sh to its end."""

    said: str
    findings: list[dict[str, str]]


def scan(port: int, authority: Path, folder: Path, check: str) -> Scan:
    """Runs one of CHECKS."""
    found = folder / f"{check}.json"
    ran = subprocess.run(
        [
            *(
                "testssl",
                "--quiet",
                "--color",
                "0",
                "--warnings",
                "off",
                "--ip",
                "127.0.0.1",
                "--nodns",
                "none",
            ),
            *("--connect-timeout", "5", "--openssl-timeout", "5", "--add-ca", str(authority)),
            *("--jsonfile", str(found), *CHECKS[check], f"127.0.0.1:{port}"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT,
        cwd=folder,
        check=False,
    )
    said = ran.stdout + ran.stderr
    return Scan(said, json.loads(found.read_text()) if found.exists() else [])


@pytest.fixture(scope="module")
def scans(
    tmp_path_factory: pytest.TempPathFactory, server: Culvert, certificates: Certificates
) -> Iterator[dict[str, Future[Scan]]]:
    """All runs, some of them at a time: testssl.sh mostly waits."""
    require("testssl")
    folder = tmp_path_factory.mktemp("scans")
    with ThreadPoolExecutor(3) as pool:
        yield {
            check: pool.submit(scan, _port(server, check), certificates.ca.cert, folder, check)
            for check in CHECKS
        }


def _port(server: Culvert, check: str) -> int:
    return server.port("held" if check in HELD else "s")


@pytest.mark.parametrize("check", CHECKS)
def test_testssl_finds_nothing(scans: dict[str, Future[Scan]], server: Culvert, check: str) -> None:
    found, port = scans[check].result(), _port(server, check)
    assert any(each["port"] == str(port) for each in found.findings), f"nothing was scanned:\n{found.said}"
    bad = [each for each in found.findings if each["severity"] not in HARMLESS and each["id"] not in EXCLUDED]
    assert not bad, json.dumps(bad, indent=1)


def test_sslscan_finds_nothing(port: int, tmp_path: Path) -> None:
    """It has no severities: what it calls weak, vulnerable or enabled and old counts as medium."""
    report = tmp_path / "report.xml"
    subprocess.run(
        [require("sslscan"), "--no-colour", "--ipv4", "--show-sigs", f"--xml={report}", f"127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=LIMIT,
        check=True,
    )
    scan = ElementTree.parse(report)
    protocols = {
        f"{each.get('type')}{each.get('version')}"
        for each in scan.iter("protocol")
        if each.get("enabled") == "1"
    }
    assert protocols == {"tls1.2", "tls1.3"}
    ciphers = list(scan.iter("cipher"))
    assert {each.get("sslversion") for each in ciphers} == {"TLSv1.2", "TLSv1.3"}
    assert {each.get("strength") for each in ciphers} <= {"strong", "acceptable"}
    assert all(int(each.get("bits", "0")) >= 128 for each in ciphers)
    assert all(each.get("vulnerable") == "0" for each in scan.iter("heartbleed"))
    assert all(each.get("supported") != "1" for each in scan.iter("compression"))
    for renegotiation in scan.iter("renegotiation"):
        assert renegotiation.get("supported") == "0" or renegotiation.get("secure") == "1"
    for algorithm in scan.iter("connection-signature-algorithm"):
        assert not any(old in algorithm.get("name", "").lower() for old in ("sha1", "md5"))
