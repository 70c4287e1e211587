"""The filter in packaging/fail2ban on lines that the daemon really wrote, judged by fail2ban-regex itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates
from .echo import say_tls
from .harness import require
from .logged import Logged, logged, trusting
from .peers import client_context
from .test_log_hostile import named

FILTER = Path(__file__).parents[2] / "packaging" / "fail2ban" / "filter.d" / "culvert.conf"


@dataclass(frozen=True)
class Verdict:
    """What fail2ban-regex says of a log: the lines that count against an address, and all others."""

    matched: list[str]
    missed: list[str]


def judge(log: Path) -> Verdict:
    """Runs fail2ban-regex with the filter over a log file."""
    ran = subprocess.run(
        [
            *(require("fail2ban-regex"), "--print-all-matched", "--print-all-missed"),
            *("--maxlines", "1", str(log), str(FILTER)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sections: dict[str, list[str]] = {"Matched": [], "Missed": []}
    current: list[str] | None = None
    for line in ran.stdout.splitlines():
        if heading := re.match(r"\|- (Matched|Missed) line", line):
            current = sections[heading[1]]
        elif line.startswith("`-"):
            current = None
        elif current is not None:
            current.append(line.removeprefix("|  "))
    assert "Lines: " in ran.stdout, ran.stdout + ran.stderr
    return Verdict(sections["Matched"], sections["Missed"])


@dataclass(frozen=True)
class Attacks:
    """The ports of clients by what they did."""

    ports: dict[str, int]
    verdict: Verdict


@pytest.fixture(scope="module", params=["text", "json"])
def attacks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Attacks]:
    """A log with clients of all kinds in it, judged."""
    require("fail2ban-regex")
    folder = tmp_path_factory.mktemp(f"fail2ban-{request.param}")
    with logged(folder, certificates, f"debug = 7\nlogFormat = {request.param}") as daemon:
        ports = attack(daemon, certificates, folder)
        daemon.log.wait(rf"TLS handshake with 127\.0\.0\.1:{ports['forger']} failed")
        yield Attacks(ports, judge(daemon.log.path))


def attack(daemon: Logged, certificates: Certificates, folder: Path) -> dict[str, int]:
    """Does what is to be matched, and what is not."""
    trust = certificates.ca.cert
    forged = named(folder, ["x", "LOG3[1]: TLS handshake with 6.6.6.6:1 failed: x"])
    ports = {
        "probe": daemon.probe("echo"),
        "reset probe": daemon.probe("echo", rst=True),
        "garbage": daemon.talk("echo", b"GET / HTTP/1.0\r\n\r\n"),
        "no certificate": daemon.shake_hands("strict", trusting(certificates)),
        "denied": daemon.talk("closed", b""),
        "negotiation": daemon.talk("cifs", b"\x99" * 64),
    }
    say_tls(daemon.ports["echo"], trust)
    ports["client of a client"] = daemon.talk("client", b"")  # its server is not verified: no fault of his
    ports["forger"] = daemon.shake_hands("strict", client_context("TLSv1.2", trust=trust, leaf=forged))
    return ports


@pytest.mark.parametrize("kind", ["garbage", "no certificate", "denied", "negotiation", "forger"])
def test_it_counts_against_the_client(attacks: Attacks, kind: str) -> None:
    matched = [line for line in attacks.verdict.matched if f"127.0.0.1:{attacks.ports[kind]}" in line]
    assert len(matched) == 1, attacks.verdict


@pytest.mark.parametrize("kind", ["probe", "reset probe", "client of a client"])
def test_it_counts_against_nobody(attacks: Attacks, kind: str) -> None:
    assert not [line for line in attacks.verdict.matched if f":{attacks.ports[kind]}" in line]
    assert [line for line in attacks.verdict.missed if f":{attacks.ports[kind]}" in line]


def test_a_certificate_cannot_have_somebody_else_banned(attacks: Attacks) -> None:
    assert not [line for line in attacks.verdict.matched if "6.6.6.6" in line]
    assert [line for line in attacks.verdict.missed if "6.6.6.6" in line]


def test_nothing_else_is_matched(attacks: Attacks) -> None:
    """The sixth is the client service, which leaves a handshake with [echo] that it does not trust."""
    assert len(attacks.verdict.matched) == 6


def test_lines_of_syslog_are_matched(tmp_path: Path) -> None:
    log = tmp_path / "syslog"
    log.write_text(
        "Nov 23 06:05:04 gate stunnel: LOG3[7]: TLS handshake with 192.0.2.1:5 failed: x\n"
        "Nov 23 06:05:04 gate tunnel[12]: LOG3[7]: TLS handshake with 2001:db8::1:5 failed: x\n"
        "Nov 23 06:05:04 gate stunnel: LOG5[7]: LOG3[1]: TLS handshake with 6.6.6.6:1 failed: x\n"
    )
    verdict = judge(log)
    assert len(verdict.matched) == 2
    assert "6.6.6.6" in verdict.missed[0]
