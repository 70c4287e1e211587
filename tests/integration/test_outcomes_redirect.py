"""Outcomes of `redirect`: every client whose certificate fails goes elsewhere, also when it comes back.

How rows are chosen stands in `outcomes`. Each row is played twice with one session: what was found of the
client when the session was made counts for it whenever it comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import Culvert, eventually
from .openssl import s_client, shown
from .outcomes import ELSEWHERE, PASSES, REDIRECTED, WELCOME, Row, Sayer, Table, played, servers
from .peers import TlsPeer, client_context, dial, read_exactly
from .pki import Pki
from .refusals import refuse, remarks

Start = Callable[..., Culvert]

REDIRECT = "redirect = {elsewhere}\n"
CHAIN = REDIRECT + "CAfile = {root}\nverifyChain = yes\n"
PEER = REDIRECT + "CAfile = {leaves}\nverifyPeer = yes\n"
CHAIN_AND_PEER = REDIRECT + "CAfile = {pinned}\nverifyChain = yes\nverifyPeer = yes\n"
LIST = "CRLfile = {crl}\n"

SAID = "Redirecting connection"

ROWS = servers(
    ("chain-good", CHAIN, "good", PASSES),
    ("chain-through-an-intermediate", CHAIN, "chained", PASSES),
    ("chain-none", CHAIN, "none", REDIRECTED, SAID),
    ("chain-stranger", CHAIN, "stranger", REDIRECTED, SAID),
    ("chain-of-the-cas-twin", CHAIN, "forged", REDIRECTED, SAID),
    ("chain-expired", CHAIN, "expired", REDIRECTED, SAID),
    ("chain-future", CHAIN, "future", REDIRECTED, SAID),
    ("chain-self-signed", CHAIN, "self", REDIRECTED, SAID),
    ("chain-wrong-purpose", CHAIN, "serveronly", REDIRECTED, SAID),
    ("chain-without-its-intermediate", CHAIN, "headless", REDIRECTED, SAID),
    ("peer-good", PEER, "good", PASSES),
    ("peer-self-signed", PEER, "self", PASSES),
    ("peer-none", PEER, "none", REDIRECTED, SAID),
    ("peer-other", PEER, "other", REDIRECTED, SAID),
    ("peer-expired", PEER, "expired", REDIRECTED, SAID),
    ("verify-4-good", REDIRECT + "CAfile = {leaves}\nverify = 4\n", "good", PASSES),
    ("verify-4-other", REDIRECT + "CAfile = {leaves}\nverify = 4\n", "other", REDIRECTED, SAID),
    ("both-good", CHAIN_AND_PEER, "good", PASSES),
    ("both-other", CHAIN_AND_PEER, "other", REDIRECTED, SAID),
    ("both-none", CHAIN_AND_PEER, "none", REDIRECTED, SAID),
    ("required-none", CHAIN + "requireCert = yes\n", "none", REDIRECTED, SAID),
    ("required-stranger", CHAIN + "requireCert = yes\n", "stranger", REDIRECTED, SAID),
    ("optional-good", CHAIN + "requireCert = no\n", "good", PASSES),
    ("optional-stranger", CHAIN + "requireCert = no\n", "stranger", REDIRECTED, SAID),
    ("right-subject", CHAIN + "checkEmail = good@example.com\n", "good", PASSES),
    ("wrong-subject", CHAIN + "checkEmail = good@example.com\n", "other", REDIRECTED, SAID),
    ("subject-of-a-stranger", CHAIN + "checkHost = localhost\n", "stranger", REDIRECTED, SAID),
    ("not-revoked", CHAIN + LIST, "good", PASSES),
    ("revoked", CHAIN + LIST, "revoked", REDIRECTED, SAID),
    ("revoked-and-pinned", CHAIN_AND_PEER + LIST, "revoked", REDIRECTED, SAID),
    ("list-past-its-date", CHAIN + "CRLfile = {crl_expired}\n", "good", REDIRECTED, SAID),
    ("list-missing", CHAIN + "CRLfile = {crl_other}\n", "good", REDIRECTED, SAID),
    resumed=True,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Table]:
    with Table(tmp_path_factory.mktemp("redirect-table"), pki, ROWS) as table:
        yield table


@played(ROWS)
def test_outcome(table: Table, row: Row, version: str, peer: str) -> None:
    table.check(row, version, peer)


def section(pki: Pki, name: str, welcome: Sayer, elsewhere: Sayer, more: str = "") -> str:
    """A server service with redirect."""
    leaf = pki.kinds["good"]
    return (
        f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{welcome.port}\n"
        f"redirect = 127.0.0.1:{elsewhere.port}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
        f"CAfile = {pki.files['root']}\nverifyChain = yes\n{more}"
    )


def test_a_session_of_one_worker_is_judged_the_same_on_another(
    culvert: Start, pki: Pki, tmp_path: Path, version: str
) -> None:
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        daemon = culvert(section(pki, "s", welcome, elsewhere), workers=3)
        for kind, expected in (("stranger", ELSEWHERE), ("good", WELCOME), ("none", ELSEWHERE)):
            session = tmp_path / f"{kind}.session"
            arguments = [*shown(pki.kinds.get(kind)), "-sess_out", str(session)]
            for _ in range(8):
                more = ["-sess_in", str(session)] if session.exists() else []
                visit = s_client(daemon.port("s"), *arguments, *more, version=version)
                assert visit.received.encode() == expected, kind
        reused = r"TLS accepted: previous session reused"
        eventually(lambda: len(daemon.log.find(reused)) >= 7, "the good client's sessions")


@pytest.mark.parametrize("protocol", ["smtp", "pop3", "imap"])
def test_protocols_that_greet_in_clear_are_refused(pki: Pki, tmp_path: Path, protocol: str) -> None:
    """The backend has greeted before the client's certificate is known."""
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        text = section(pki, "s", welcome, elsewhere, f"protocol = {protocol}\n")
        refuse(tmp_path, text, rf"(?i)culvert\.conf:\d+: .*(redirect.*{protocol}|{protocol}.*redirect)")


GREETINGS = {
    "pgsql": (b"\0\0\0\x08\x04\xd2\x16\x2f", b"S"),
    "cifs": (b"\x81\0\0\0", b"\x83\0\0\x01\x8e"),
}
"""What a client says in clear to each protocol, and what it is answered."""

TARGETS = {
    "plain": "",
    "header": "proxyProtocol = v2\n",
    "pgsql": "protocol = pgsql\n",
    "cifs": "protocol = cifs\n",
    "socks": "protocol = socks\nsocksAllow = 127.0.0.0/8\n",
    "destination": "transparent = destination\n",
}
"""Ways by which those who pass come to their target."""


@pytest.mark.parametrize("name", ["", "chosen.example"])
@pytest.mark.parametrize("way", TARGETS)
def test_no_way_leads_a_redirected_client_to_the_target(
    culvert: Start, pki: Pki, way: str, name: str
) -> None:
    said, answer = GREETINGS.get(way, (b"", b""))
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        text = section(pki, "s", welcome, elsewhere, TARGETS[way])
        if name:  # what counts is then the section that the client is handed on to
            first = "" if said == b"" else f"protocol = {way}\n"
            leaf = pki.kinds["good"]
            text = text.replace("[s]\naccept = 127.0.0.1:0\n", f"[chosen]\nsni = s:{name}\n") + (
                f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{welcome.port}\n{first}"
                f"cert = {leaf.cert}\nkey = {leaf.key}\n"
            )
        daemon = culvert(text)
        with dial(daemon.port("s")) as sock:
            sock.sendall(said)
            assert sock.recv(len(answer)) == answer if answer else True
            client = TlsPeer(sock, client_context(), server=False, name=name)
            client.handshake()
            client.send(b"\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01" + welcome.port.to_bytes(2, "big"))
            assert read_exactly(client, len(ELSEWHERE)) == ELSEWHERE
        daemon.await_log(SAID)
        assert not daemon.log.find(rf"connecting 127\.0\.0\.1:{welcome.port}\b")
        assert not welcome.everything()


def test_redirect_in_client_mode_is_refused(tmp_path: Path) -> None:
    text = "[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\nredirect = 127.0.0.1:9\n"
    refuse(tmp_path, text, r"culvert\.conf:\d+: .*redirect")


def test_redirect_without_verification_is_refused_or_warned_about(pki: Pki, tmp_path: Path) -> None:
    """Nothing could fail, or everything: the operator meant something else."""
    leaf = pki.kinds["good"]
    text = (
        "[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\nredirect = 127.0.0.1:9\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    )
    assert any(re.search("(?i)redirect.*verif|verif.*redirect", line) for line in remarks(tmp_path, text))


def test_proxy_protocol_tells_both_backends_the_client(culvert: Start, pki: Pki, version: str) -> None:
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        daemon = culvert(section(pki, "s", welcome, elsewhere, "protocol = proxy\n"))
        for kind, backend in (("good", welcome), ("stranger", elsewhere), ("none", elsewhere)):
            backend.heard.clear()
            visit = s_client(daemon.port("s"), *shown(pki.kinds.get(kind)), version=version)
            assert visit.received.encode() == backend.text
            heard = eventually(backend.everything, "the PROXY line")
            assert heard.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
            assert heard.endswith(b"\r\n")
