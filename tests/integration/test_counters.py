"""What is counted: each reason for which a peer does not pass, in a number of its own, by SIGUSR2."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from .greeters import Greeters, greeting
from .harness import Culvert, eventually
from .http_responder import OddResponder
from .openssl import s_client, shown
from .outcomes import ELSEWHERE, Sayer
from .pki import Pki, damaged, status

Start = Callable[..., Culvert]

LINE = re.compile(
    r"LOG5\[main\]: Service \[(?P<service>\S+)\] in process \d+: (?P<open>\d+) open; "
    r"(?P<accepted>\d+) accepted, (?P<handshakes>\d+) handshakes \((?P<resumed>\d+) resumed\), "
    r"(?P<failed>\d+) failed, (?P<redirected>\d+) redirected, \d+ truncated, "
    r"\d+ byte\(s\) sent to TLS, \d+ byte\(s\) sent to socket(; ended: [^;]+)?"
    r"(; rejected: (?P<rejected>[^;]+))?(; OCSP: (?P<ocsp>[^;]+))?$"
)
OVER = r"Connection (closed|reset): \d+ byte"

CHAIN = "CAfile = {root}\nverifyChain = yes\n"
KEYS = {"alice": "00112233445566778899aabbccddeeff", "bob": "ffeeddccbbaa99887766554433221100"}

REJECTED: dict[str, tuple[str, str, str]] = {
    "no-certificate": (CHAIN, "none", "no certificate"),
    "wrong-chain": (CHAIN, "stranger", "unable to get local issuer certificate"),
    "chain-without-its-intermediate": (CHAIN, "headless", "unable to get local issuer certificate"),
    "of-the-cas-twin": (CHAIN, "forged", "certificate signature failure"),
    "self-signed": (CHAIN, "self", "self-signed certificate"),
    "expired": (CHAIN, "expired", "certificate has expired"),
    "not-yet-valid": (CHAIN, "future", "certificate is not yet valid or the system clock is incorrect"),
    "wrong-purpose": (CHAIN, "serveronly", "unsuitable certificate purpose"),
    "not-pinned": ("CAfile = {leaves}\nverifyPeer = yes\n", "other", "certificate not pinned"),
    "wrong-subject": (CHAIN + "checkHost = elsewhere.example\n", "good", "subject mismatch"),
    "no-rule": (CHAIN + "allowCN = nobody\n", "good", "no allow rule matches"),
    "no-key-rule": ("PSKsecrets = {secrets}\nallowPSK = alice\n", "bob", "no allow rule matches"),
    "revoked": (CHAIN + "CRLfile = {crl}\n", "revoked", "certificate revoked"),
    "revoked-by-folder": (CHAIN + "CRLpath = {lists}\n", "revoked", "certificate revoked"),
    "list-past-its-date": (CHAIN + "CRLfile = {crl_expired}\n", "good", "CRL has expired"),
    "list-not-yet-valid": (CHAIN + "CRLfile = {crl_future}\n", "good", "CRL is not yet valid"),
    "list-of-another-key": (CHAIN + "CRLfile = {crl_forged}\n", "good", "CRL signature failure"),
    "no-list": (CHAIN + "CRLfile = {crl_other}\n", "good", "unable to get certificate CRL"),
}
"""The service's options, what the client shows, and what counts it among the rejected."""

REDIRECTED = (
    "no-certificate",
    "wrong-chain",
    "expired",
    "not-pinned",
    "wrong-subject",
    "no-rule",
    "revoked",
    "list-past-its-date",
)
"""Those that are played with redirect as well."""

OCSP: dict[str, str] = {
    "revoked": "revoked",
    "another": "answer for another certificate",
    "foreign": "answer from another key",
    "damaged": "bad signature",
    "stale": "answer out of its time",
    "unknown": "certificate unknown",
    "later": "refused by the responder",
    "garbage": "malformed answer",
    "error": "no answer",
}
"""What the responder answers, and what counts it under OCSP."""

SERVERS: dict[str, tuple[str, str, str]] = {
    "wrong-chain": (CHAIN, "stranger", "unable to get local issuer certificate"),
    "expired": (CHAIN, "expired", "certificate has expired"),
    "wrong-subject": (CHAIN + "checkHost = elsewhere.example\n", "good", "subject mismatch"),
    "no-rule": (CHAIN + "allowCN = nobody\n", "good", "no allow rule matches"),
    "revoked": (CHAIN + "CRLfile = {crl}\n", "revoked", "certificate revoked"),
    "list-past-its-date": (CHAIN + "CRLfile = {crl_expired}\n", "good", "CRL has expired"),
}
"""The same where Culvert is the client and a server shows the certificate."""


def presented(pki: Pki, kind: str) -> list[str]:
    """The arguments with which openssl shows a certificate or has a pre-shared key."""
    if kind in KEYS:
        return ["-psk", KEYS[kind], "-psk_identity", kind]
    return shown(pki.kinds.get(kind))


def counted(daemon: Culvert, connections: int) -> dict[str, Mapping[str, str | None]]:
    """What the list says of each service, once so many connections are over."""
    eventually(lambda: len(daemon.log.find(OVER)) >= connections, f"{connections} connections' ends")
    services = {m[1] for m in daemon.log.find(r"Service \[(\S+)\] \(FD=\d+\) bound to")}
    listed: dict[str, Mapping[str, str | None]] = {}

    def found(mark: int) -> bool:
        matches = (LINE.search(line) for line in daemon.log.lines[mark:])
        listed.update({match["service"]: match.groupdict() for match in matches if match is not None})
        return listed.keys() == services

    def nothing_open() -> bool:
        listed.clear()
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGUSR2)
        eventually(lambda: found(mark), "a line for each service")
        return all(line["open"] == "0" for line in listed.values())

    eventually(nothing_open, "the last connection, which has its line, to be closed")
    return listed


def numbers(line: Mapping[str, str | None], *names: str) -> list[int]:
    return [int(line[name] or "") for name in names]


@pytest.fixture(scope="module")
def files(pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | Path]:
    """What options name besides the PKI's own files."""
    folder = tmp_path_factory.mktemp("counters")
    secrets = folder / "secrets"
    secrets.touch(mode=0o600)
    secrets.write_text("".join(f"{identity}:{key}\n" for identity, key in KEYS.items()))
    lists = folder / "lists"
    lists.mkdir()
    (lists / "12345678.r0").write_bytes(Path(pki.files["crl"]).read_bytes())
    return {"secrets": secrets, "lists": lists}


@pytest.fixture(scope="module")
def responder(pki: Pki) -> Iterator[OddResponder]:
    root, good = pki.root, pki.kinds["good"]
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    answers = {
        "good": status(root, good),
        "revoked": status(root, good, ocsp.OCSPCertStatus.REVOKED),
        "another": status(root, pki.kinds["other"]),
        "foreign": status(root, good, signer=pki.other),
        "damaged": damaged(status(root, good)),
        "stale": status(root, good, starts=-9, ends=-2),
        "unknown": status(root, good, ocsp.OCSPCertStatus.UNKNOWN),
        "later": later.public_bytes(Encoding.DER),
    }
    with OddResponder(answers) as running:
        yield running


class Visited:
    """A daemon with a service for each reason, each of which has been visited once in each version."""

    VERSIONS = ("TLSv1.2", "TLSv1.3")

    def __init__(self, daemon: Culvert, pki: Pki, kinds: Mapping[str, str]) -> None:
        for service, kind in kinds.items():
            for version in self.VERSIONS:
                s_client(daemon.port(service), *presented(pki, kind), version=version)
        self.lines = counted(daemon, len(kinds) * len(self.VERSIONS))


def sections(pki: Pki, files: Mapping[str, str | Path], services: Mapping[str, str], sink: str) -> str:
    leaf = pki.kinds["good"]
    certified = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    return "".join(
        f"[{name}]\naccept = 127.0.0.1:0\n{sink}\n{'' if 'PSKsecrets' in options else certified}"
        f"{pki.fill(options, files)}"
        for name, options in services.items()
    )


@pytest.fixture(scope="module")
def rejected(
    pki: Pki, files: dict[str, str | Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visited]:
    services = {name: options for name, (options, _, _) in REJECTED.items()}
    text = sections(pki, files, services, "exec = /bin/true")
    with Culvert(tmp_path_factory.mktemp("rejected"), text) as daemon:
        yield Visited(daemon, pki, {name: kind for name, (_, kind, _) in REJECTED.items()})


@pytest.mark.parametrize("reason", REJECTED)
def test_each_refusal_is_counted_by_its_reason(rejected: Visited, reason: str) -> None:
    line = rejected.lines[reason]
    assert line["rejected"] == f"2 {REJECTED[reason][2]}"
    assert line["ocsp"] is None
    assert numbers(line, "open", "accepted", "handshakes", "failed", "redirected") == [0, 2, 0, 2, 0]


@pytest.fixture(scope="module")
def redirected(
    pki: Pki, files: dict[str, str | Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visited]:
    with Sayer(ELSEWHERE) as elsewhere:
        more = f"redirect = 127.0.0.1:{elsewhere.port}\n"
        rows = {name: REJECTED[name] for name in REDIRECTED}
        services = {name: options + more for name, (options, _, _) in rows.items()}
        text = sections(pki, files, services, "exec = /bin/true")
        with Culvert(tmp_path_factory.mktemp("redirected"), text) as daemon:
            yield Visited(daemon, pki, {name: kind for name, (_, kind, _) in rows.items()})


@pytest.mark.parametrize("reason", REDIRECTED)
def test_a_redirection_is_counted_by_its_reason_too(redirected: Visited, reason: str) -> None:
    line = redirected.lines[reason]
    assert line["rejected"] == f"2 {REJECTED[reason][2]}"
    assert numbers(line, "open", "accepted", "handshakes", "failed", "redirected") == [0, 2, 2, 0, 2]


def test_a_client_that_comes_back_with_a_session_is_counted_again(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    session = tmp_path / "session"
    with Sayer(ELSEWHERE) as elsewhere:
        more = f"redirect = 127.0.0.1:{elsewhere.port}\n"
        daemon = culvert(sections(pki, {}, {"s": CHAIN + more}, "exec = /bin/true"))
        for _ in range(3):
            kept: list[str | Path] = ["-sess_in", session] if session.exists() else []
            arguments = [*shown(pki.kinds["expired"]), "-sess_out", session, *kept]
            assert s_client(daemon.port("s"), *arguments, version=version).received == ELSEWHERE.decode()
        line = counted(daemon, 3)["s"]
    assert line["rejected"] == "3 certificate has expired"
    assert numbers(line, "handshakes", "resumed", "failed", "redirected") == [3, 2, 0, 3]


@pytest.fixture(scope="module")
def asked(pki: Pki, responder: OddResponder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    services = {name: f"{CHAIN}OCSP = {responder.url(name)}\n" for name in ["good", *OCSP]}
    text = sections(pki, {}, services, "exec = /bin/true")
    with Culvert(tmp_path_factory.mktemp("asked"), text) as daemon:
        yield Visited(daemon, pki, dict.fromkeys(services, "good"))


@pytest.mark.parametrize("answer", OCSP)
def test_each_doubt_of_ocsp_is_counted(asked: Visited, answer: str) -> None:
    line = asked.lines[answer]
    assert line["ocsp"] == f"2 {OCSP[answer]}"
    assert line["rejected"] is None
    assert numbers(line, "open", "accepted", "handshakes", "failed", "redirected") == [0, 2, 0, 2, 0]


def test_who_passes_is_counted_among_no_refusals(asked: Visited) -> None:
    line = asked.lines["good"]
    assert (line["ocsp"], line["rejected"]) == ("2 good", None)
    assert numbers(line, "open", "accepted", "handshakes", "failed", "redirected") == [0, 2, 2, 0, 0]


def test_what_a_server_shows_is_counted_alike(
    culvert: Start, pki: Pki, files: dict[str, str | Path], version: str
) -> None:
    kinds = {kind: pki.kinds[kind] for _, kind, _ in SERVERS.values()}
    with Greeters(kinds, version) as greeters:
        text = "client = yes\n"
        for name, (options, kind, _) in SERVERS.items():
            text += f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports[kind]}\n"
            text += pki.fill(options, files)
        daemon = culvert(text)
        assert {name: greeting(daemon.port(name)) for name in SERVERS} == dict.fromkeys(SERVERS, b"")
        lines = counted(daemon, len(SERVERS))
    assert {name: line["rejected"] for name, line in lines.items()} == {
        name: f"1 {reason}" for name, (_, _, reason) in SERVERS.items()
    }
    assert all(numbers(line, "handshakes", "failed") == [0, 1] for line in lines.values())


def test_different_reasons_of_one_service_stand_side_by_side(culvert: Start, pki: Pki, version: str) -> None:
    daemon = culvert(sections(pki, {}, {"s": CHAIN}, "exec = /bin/true"))
    for kind in ("expired", "none", "expired", "good", "stranger"):
        s_client(daemon.port("s"), *shown(pki.kinds.get(kind)), version=version)
    line = counted(daemon, 5)["s"]
    assert line["rejected"] == (
        "2 certificate has expired, 1 no certificate, 1 unable to get local issuer certificate"
    )
    assert numbers(line, "accepted", "handshakes", "failed") == [5, 1, 4]
