"""Each way in which a verification has been got past in stunnel, kept shut.

The tables of outcomes hold the plain cases; here are those that need more than one connection, a reload, or a
configuration that must not start.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .greeters import Greeters, greeting
from .harness import Culvert
from .openssl import s_client, shown
from .outcomes import ELSEWHERE, WELCOME, Sayer
from .pki import Pki
from .refusals import refuse

Start = Callable[..., Culvert]


def section(pki: Pki, name: str, options: str) -> str:
    """A server service that greets by its own name."""
    leaf = pki.kinds["good"]
    return (
        f"[{name}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo {name}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n{pki.fill(options)}\n"
    )


class Returning:
    """An openssl client that shows what it is told to, and comes back with its last session."""

    def __init__(self, folder: Path, version: str) -> None:
        self._session = folder / "session"
        self._version = version

    def visit(self, port: int, *arguments: str) -> str:
        """What the server says, which is nothing where it refuses."""
        more = ["-sess_in", str(self._session)] if self._session.exists() else []
        visit = s_client(port, *arguments, *more, "-sess_out", str(self._session), version=self._version)
        return visit.received


CHAIN = "CAfile = {root}\nverifyChain = yes"
PEER = "CAfile = {leaves}\nverifyPeer = yes"

STRICT = {
    "chain": CHAIN,
    "peer": PEER,
    "required": "requireCert = yes",
    "subject": f"{CHAIN}\ncheckEmail = good@example.com",
    "verify-4": "CAfile = {leaves}\nverify = 4",
}


@pytest.mark.parametrize("strict", STRICT)
@pytest.mark.parametrize("lax", ["", f"{CHAIN}\nrequireCert = no"], ids=["unverified", "optional"])
def test_a_session_of_a_lax_service_opens_no_strict_one(
    *, culvert: Start, pki: Pki, tmp_path: Path, version: str, strict: str, lax: str
) -> None:
    """The same certificate and the same clients: only what is asked of them differs."""
    daemon = culvert(section(pki, "lax", lax) + section(pki, "strict", STRICT[strict]))
    client = Returning(tmp_path, version)
    assert client.visit(daemon.port("lax")) == "lax\n"
    assert client.visit(daemon.port("lax")) == "lax\n"
    assert client.visit(daemon.port("strict")) == ""


@pytest.mark.parametrize("strict", STRICT)
def test_a_session_from_before_a_reload_opens_no_service_that_became_strict(
    *, culvert: Start, pki: Pki, tmp_path: Path, version: str, strict: str
) -> None:
    daemon = culvert(section(pki, "s", ""))
    client = Returning(tmp_path, version)
    assert client.visit(daemon.port("s")) == "s\n"
    mark = daemon.reload(section(pki, "s", STRICT[strict]))
    daemon.await_log("Accepting new connections", since=mark)
    assert client.visit(daemon.port("s")) == ""


def test_a_session_from_before_a_reload_does_not_outlive_its_ca(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    daemon = culvert(section(pki, "s", "CAfile = {other}\nverifyChain = yes"))
    client = Returning(tmp_path, version)
    stranger = shown(pki.kinds["stranger"])
    assert client.visit(daemon.port("s"), *stranger) == "s\n"
    mark = daemon.reload(section(pki, "s", CHAIN))
    daemon.await_log("Accepting new connections", since=mark)
    assert client.visit(daemon.port("s"), *stranger) == ""


@pytest.mark.parametrize("strict", ["{chain}", "{peer}", "{chain}\ncheckHost = elsewhere.example"])
def test_a_client_that_became_strict_resumes_no_unverified_session(
    *, culvert: Start, pki: Pki, version: str, strict: str
) -> None:
    """The server's session from before the reload stands for no verification."""
    kind = "good" if "elsewhere" in strict else "stranger"
    options = pki.fill(strict.replace("{chain}", CHAIN).replace("{peer}", PEER))
    with Greeters({"server": pki.kinds[kind]}, version) as greeters:
        lax = f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
        daemon = culvert(lax)
        assert greeting(daemon.port("c")) == b"I am server"
        assert greeting(daemon.port("c")) == b"I am server"
        mark = daemon.reload(f"{lax}{options}\n")
        daemon.await_log("Accepting new connections", since=mark)
        assert greeting(daemon.port("c")) == b""


def test_two_clients_of_one_server_do_not_share_sessions(culvert: Start, pki: Pki, version: str) -> None:
    """One service verifies and the other does not; both have the same target."""
    with Greeters({"server": pki.kinds["stranger"]}, version) as greeters:
        common = f"client = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
        daemon = culvert(f"[lax]\n{common}[strict]\n{common}{pki.fill(CHAIN)}\n")
        assert greeting(daemon.port("lax")) == b"I am server"
        assert greeting(daemon.port("lax")) == b"I am server"
        assert greeting(daemon.port("strict")) == b""


def redirecting(pki: Pki, welcome: Sayer, elsewhere: Sayer, name: str, more: str) -> str:
    """A server service with redirect; without `more` every client fails or none is asked."""
    leaf = pki.kinds["good"]
    return (
        f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{welcome.port}\n"
        f"redirect = 127.0.0.1:{elsewhere.port}\ncert = {leaf.cert}\nkey = {leaf.key}\n{pki.fill(more)}\n"
    )


def test_a_redirected_session_resumed_with_a_good_certificate_stays_redirected(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    """A resumed session shows no certificate: what its client has now does not count."""
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        daemon = culvert(redirecting(pki, welcome, elsewhere, "s", CHAIN))
        client = Returning(tmp_path, version)
        for _ in range(2):
            visited = client.visit(daemon.port("s"), *shown(pki.kinds["stranger"]))
            assert visited.encode() == ELSEWHERE
        first = len(daemon.log.find("previous session reused"))
        visited = client.visit(daemon.port("s"), *shown(pki.kinds["good"]))
        resumed = len(daemon.log.find("previous session reused")) > first
        assert visited.encode() == (ELSEWHERE if resumed else WELCOME)


def test_a_session_of_a_lax_service_is_redirected_by_a_strict_one(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        daemon = culvert(section(pki, "lax", "") + redirecting(pki, welcome, elsewhere, "strict", CHAIN))
        client = Returning(tmp_path, version)
        assert client.visit(daemon.port("lax")) == "lax\n"
        assert client.visit(daemon.port("strict")).encode() == ELSEWHERE


def test_redirect_without_a_connect_serves_those_who_fail_alone(
    culvert: Start, pki: Pki, version: str
) -> None:
    """With exec as the plain side, who fails goes to redirect's address and never to the program."""
    leaf = pki.kinds["good"]
    with Sayer(ELSEWHERE) as elsewhere:
        daemon = culvert(
            f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
            f"redirect = 127.0.0.1:{elsewhere.port}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            f"{pki.fill(CHAIN)}\n"
        )
        for kind, expected in (("good", WELCOME), ("stranger", ELSEWHERE), ("none", ELSEWHERE)):
            visit = s_client(daemon.port("s"), *shown(pki.kinds.get(kind)), version=version)
            assert visit.received.encode() == expected, kind


def speaks_of(lines: list[str], option: str) -> bool:
    """Whether a line says of the option that it has to do with verification."""
    return any(re.search(rf"{option}.*(?i:verif)|(?i:verif).*{option}", line) for line in lines)


@pytest.mark.parametrize("option", ["CRLfile = {crl}", "CRLpath = /"])
def test_a_revocation_list_without_verification_is_no_silent_comfort(
    pki: Pki, tmp_path: Path, option: str
) -> None:
    """Nothing would look at it: that is an error or a warning, not nothing."""
    daemon = Culvert(tmp_path, section(pki, "s", option), command=("check",), header="", workers=None)
    daemon.launch()
    daemon.wait()
    name = option.split(maxsplit=1)[0]
    assert [*daemon.log.find(rf"{name}.*(?i:verif)"), *daemon.stdout.find(rf"{name}.*(?i:verif)")]


@pytest.mark.parametrize("option", ["OCSP = http://127.0.0.1:9/", "OCSPaia = yes"])
def test_ocsp_without_verification_is_no_silent_comfort(pki: Pki, tmp_path: Path, option: str) -> None:
    daemon = Culvert(tmp_path, section(pki, "s", option), command=("check",), header="", workers=None)
    daemon.launch()
    daemon.wait()
    name = option.split(maxsplit=1)[0]
    assert [*daemon.log.find(rf"{name}.*(?i:verif)"), *daemon.stdout.find(rf"{name}.*(?i:verif)")]


@pytest.mark.parametrize("options", ["verifyChain = yes", "verifyPeer = yes", "verify = 2", "verify = 4"])
def test_verification_without_anybody_to_trust_does_not_start(pki: Pki, tmp_path: Path, options: str) -> None:
    refuse(tmp_path, section(pki, "s", f"{options}\nCRLfile = {{crl}}"), "CAfile")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("CAfile", ""),
        ("CAfile", "nothing here is a certificate\n"),
        ("CAfile", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
    ids=["empty", "text", "broken"],
)
def test_a_file_without_a_certificate_does_not_start(
    *, pki: Pki, tmp_path: Path, name: str, content: str
) -> None:
    path = tmp_path / "trust"
    path.write_text(content)
    text = section(pki, "s", f"verifyChain = yes\n{name} = {path}")
    refuse(tmp_path, text, rf"culvert\.conf:\d+: .*{path}")


def test_an_own_chain_in_the_wrong_order_does_not_start(pki: Pki, tmp_path: Path) -> None:
    leaf = pki.kinds["chained"]
    path = tmp_path / "chain.pem"
    path.write_bytes(pki.intermediate.cert.read_bytes() + leaf.cert.read_bytes())
    text = f"[s]\naccept = 127.0.0.1:0\nexec = /bin/cat\ncert = {path}\nkey = {leaf.key}\n"
    refuse(tmp_path, text, rf"culvert\.conf:\d+: .*{path}.*(order|first)|{path}.*(order|first)")


def test_an_own_chain_with_a_foreign_link_does_not_start(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "chain.pem"
    leaf = pki.kinds["chained"]
    path.write_bytes(
        leaf.cert.read_bytes() + pki.other.cert.read_bytes() + pki.intermediate.cert.read_bytes()
    )
    text = f"[s]\naccept = 127.0.0.1:0\nexec = /bin/cat\ncert = {path}\nkey = {leaf.key}\n"
    refuse(tmp_path, text, rf"{path}.*(order|issue|sign|chain)")
