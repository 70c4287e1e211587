"""Services that are chosen by the server name a client asks for: `sni = PRIMARY:PATTERN`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from .certificates import Leaf
from .greeters import greeting
from .harness import PATIENCE, Culvert, eventually, require
from .openssl import s_client, shown
from .outcomes import Sayer
from .peers import Peers, TlsPeer, client_context, read_all
from .pki import Pki, issue
from .refusals import refuse
from .stunnel import Stunnel

Start = Callable[..., Culvert]

NAMES: dict[str | None, str] = {
    None: "primary",
    "unknown.example": "primary",
    "one.example": "one",
    "ONE.Example": "one",
    "one.example.org": "primary",
    "xone.example": "primary",
    "a.wild.example": "wild",
    "A.WILD.EXAMPLE": "wild",
    "wild.example": "primary",
    "exact.wild.example": "exact",
    "xwild.example": "primary",
    "first.example": "two",
    "second.example": "two",
    "bare.example": "bare",
    "verified.example": "verified",
}
"""The server name that a client asks for, and the service whose certificate it sees."""

GREETINGS = {name: f"{name}\n" for name in ("primary", "one", "wild", "exact", "two", "verified")}
GREETINGS["bare"] = "primary\n"
"""What each service's plain side says; `bare` has none of its own."""


@dataclass(frozen=True)
class Names:
    """The daemon that serves all names on one port, and the certificates it shows."""

    daemon: Culvert
    leaves: dict[str, Leaf]

    @property
    def port(self) -> int:
        return self.daemon.port("primary")


def secondary(name: str, leaf: Leaf, patterns: list[str], more: str = "") -> str:
    """A secondary service with its own certificate."""
    text = f"[{name}]\ncert = {leaf.cert}\nkey = {leaf.key}\n{more}\n"
    return text + "".join(f"sni = primary:{pattern}\n" for pattern in patterns)


def says(name: str) -> str:
    """The options of a program that greets by name."""
    return f"exec = /bin/echo\nexecArgs = echo {name}"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Names]:
    folder = tmp_path_factory.mktemp("sni")
    leaves = {name: issue(pki.root, name, folder=folder) for name in GREETINGS}
    with Sayer(b"primary\n") as primary, Sayer(b"two\n") as two:
        trust = f"CAfile = {pki.files['root']}\nverifyChain = yes"
        text = (
            f"[primary]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{primary.port}\n"
            f"cert = {leaves['primary'].cert}\nkey = {leaves['primary'].key}\n"
            + secondary("one", leaves["one"], ["one.example"], says("one"))
            + secondary("exact", leaves["exact"], ["exact.wild.example"], says("exact"))
            + secondary("wild", leaves["wild"], ["*.wild.example"], says("wild"))
            + secondary(
                "two", leaves["two"], ["first.example", "second.example"], f"connect = 127.0.0.1:{two.port}"
            )
            + secondary("bare", leaves["bare"], ["bare.example"])
            + secondary("verified", leaves["verified"], ["verified.example"], f"{says('verified')}\n{trust}")
        )
        with Culvert(folder, text) as daemon:
            yield Names(daemon, leaves)


def asking(peers: Peers, port: int, name: str | None, context: SSL.Context) -> tuple[str, TlsPeer]:
    """The common name that a TLS client sees when it asks for a server name, and the connection."""
    peer = peers.tls(port, context, name or "")
    certificate = peer.engine.get_peer_certificate()
    assert certificate is not None
    names = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value), peer


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_the_certificate_and_the_plain_side_of_each_name(
    *, names: Names, peers: Peers, pki: Pki, version: str, name: str | None
) -> None:
    context = client_context(version, leaf=pki.kinds["good"])
    seen, peer = asking(peers, names.port, name, context)
    assert seen == NAMES[name]
    assert read_all(peer).decode() == GREETINGS[NAMES[name]]


def test_the_log_names_the_service(names: Names, peers: Peers) -> None:
    mark = names.daemon.log.mark()
    asking(peers, names.port, "one.example", client_context())
    names.daemon.await_log(r"\[one\]|service one", since=mark)


def test_openssl_asks_for_names(names: Names, version: str) -> None:
    for name in ("one.example", "a.wild.example", "unknown.example"):
        visit = s_client(names.port, "-servername", name, version=version)
        assert visit.received == GREETINGS[NAMES[name]]
    assert s_client(names.port, "-noservername", version=version).received == "primary\n"


def test_stunnel_asks_for_names(names: Names, pki: Pki, tmp_path: Path, version: str) -> None:
    text = f"client = yes\nCAfile = {pki.files['root']}\nverifyChain = yes\nsslVersion = {version}\n"
    asked = {"one": "one.example", "wild": "a.wild.example", "primary": "unknown.example"}
    for service, name in asked.items():
        text += f"[{service}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{names.port}\nsni = {name}\n"
    with Stunnel(tmp_path, text) as stunnel:
        for service in asked:
            assert greeting(stunnel.ports[service]) == f"{service}\n".encode()


def test_curl_asks_for_names(culvert: Start, pki: Pki, tmp_path: Path) -> None:
    """It sends the name of the URL, and takes the certificate for it."""
    leaves = {name: issue(pki.root, name, folder=tmp_path) for name in ("primary", "localhost")}
    page = tmp_path / "page"
    page.write_text("HTTP/1.0 200 OK\r\n\r\nby name\n")
    text = (
        f"[primary]\naccept = 127.0.0.1:0\nexec = /bin/false\n"
        f"cert = {leaves['primary'].cert}\nkey = {leaves['primary'].key}\n"
        + secondary("local", leaves["localhost"], ["localhost"], f"exec = /bin/cat\nexecArgs = cat {page}")
    )
    daemon = culvert(text)
    command = [
        require("curl"),
        "--silent",
        "--show-error",
        "--cacert",
        str(pki.root.cert),
        "--max-time",
        "10",
    ]
    url = f"https://localhost:{daemon.port('primary')}/"
    ran = subprocess.run([*command, url], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.stdout == "by name\n", ran.stderr


class TestVerification:
    """A secondary service's own verification holds, whatever the client did with another service before."""

    def test_a_client_without_a_certificate(self, names: Names, version: str) -> None:
        visit = s_client(names.port, "-servername", "verified.example", version=version)
        assert visit.received == ""

    @pytest.mark.parametrize(("kind", "expected"), [("good", "verified\n"), ("stranger", "")])
    def test_a_client_with_one(
        self, *, names: Names, pki: Pki, version: str, kind: str, expected: str
    ) -> None:
        arguments = [*shown(pki.kinds[kind]), "-servername", "verified.example"]
        assert s_client(names.port, *arguments, version=version).received == expected

    @pytest.mark.parametrize("first", ["unknown.example", "one.example"])
    def test_a_session_of_another_service_gets_nobody_in(
        self, *, names: Names, tmp_path: Path, version: str, first: str
    ) -> None:
        session = tmp_path / "session"
        visit = s_client(names.port, "-servername", first, "-sess_out", session, version=version)
        assert visit.received
        again = ["-servername", "verified.example", "-sess_in", str(session)]
        assert s_client(names.port, *again, version=version).received != "verified\n"
        assert s_client(names.port, "-servername", first, "-sess_in", session, version=version).received

    def test_a_primary_that_verifies_lets_in_no_session_of_a_secondary(
        self, *, culvert: Start, pki: Pki, tmp_path: Path, version: str
    ) -> None:
        leaf = pki.kinds["good"]
        daemon = culvert(
            f"[primary]\naccept = 127.0.0.1:0\n{says('primary')}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            f"CAfile = {pki.files['root']}\nverifyChain = yes\n"
            + secondary("open", pki.kinds["other"], ["open.example"], says("open"))
        )
        port = daemon.port("primary")
        session = tmp_path / "session"
        opened = ["-servername", "open.example"]
        assert s_client(port, *opened, "-sess_out", session, version=version).received == "open\n"
        for name in (["-noservername"], ["-servername", "unknown.example"]):
            # The session may be taken for the open service, whose name it has, but not for the primary.
            visit = s_client(port, *name, "-sess_in", session, version=version)
            assert visit.received in ("", "open\n")

    def test_a_secondary_resumes_its_own_sessions(
        self, *, names: Names, pki: Pki, tmp_path: Path, version: str
    ) -> None:
        session = tmp_path / "session"
        arguments = [*shown(pki.kinds["good"]), "-servername", "verified.example"]
        first = s_client(names.port, *arguments, "-sess_out", session, version=version)
        assert first.received == "verified\n"
        mark = names.daemon.log.mark()
        again = s_client(names.port, *arguments, "-sess_in", session, version=version)
        assert again.received == "verified\n"
        reused = "TLS accepted: previous session reused"
        eventually(lambda: names.daemon.log.find(reused, mark), "a resumed session", timeout=5)

    def test_redirect_of_a_secondary(self, *, culvert: Start, pki: Pki, version: str) -> None:
        leaf = pki.kinds["good"]
        with Sayer(b"elsewhere\n") as elsewhere:
            daemon = culvert(
                f"[primary]\naccept = 127.0.0.1:0\n{says('primary')}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
                + secondary(
                    "strict",
                    pki.kinds["other"],
                    ["strict.example"],
                    f"{says('strict')}\nredirect = 127.0.0.1:{elsewhere.port}\n"
                    f"CAfile = {pki.files['root']}\nverifyChain = yes",
                )
            )
            port = daemon.port("primary")
            named = ["-servername", "strict.example"]
            for kind, expected in (
                ("good", "strict\n"),
                ("stranger", "elsewhere\n"),
                ("none", "elsewhere\n"),
            ):
                visit = s_client(port, *named, *shown(pki.kinds.get(kind)), version=version)
                assert visit.received == expected, kind


def test_a_secondary_has_its_own_tls_versions_and_ciphers(culvert: Start, pki: Pki) -> None:
    leaf = pki.kinds["good"]
    daemon = culvert(
        f"[primary]\naccept = 127.0.0.1:0\n{says('primary')}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
        + secondary(
            "narrow",
            pki.kinds["other"],
            ["narrow.example"],
            f"{says('narrow')}\nciphers = ECDHE-ECDSA-CHACHA20-POLY1305",
        )
    )
    port = daemon.port("primary")
    named = ["-servername", "narrow.example"]
    only = ["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert s_client(port, *only, version="TLSv1.2").received == "primary\n"
    assert s_client(port, *named, *only, version="TLSv1.2").received == ""
    assert s_client(port, *named, version="TLSv1.2").received == "narrow\n"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nobody:one.example", "nobody"),
        ("primary:", "SERVICE:PATTERN|pattern|name"),
        ("primary:a.*.example", r"\*"),
        ("primary:one.example", "one.example"),
    ],
    ids=["no-such-primary", "no-pattern", "star-inside", "twice"],
)
def test_what_does_not_start(pki: Pki, tmp_path: Path, value: str, said: str) -> None:
    leaf = pki.kinds["good"]
    text = f"[primary]\naccept = 127.0.0.1:0\n{says('primary')}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
    if value == "primary:one.example":
        text += secondary("first", leaf, ["one.example"], says("first"))
    text += f"[second]\nsni = {value}\n{says('second')}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
    refuse(tmp_path, text, rf"culvert\.conf:\d+: .*({said})")
