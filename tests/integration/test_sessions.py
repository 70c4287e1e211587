"""Sessions are resumed in both roles, by tickets that every worker understands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .greeters import Greeters, greeting
from .harness import Culvert, eventually, require
from .peers import Peers, TlsPeer, client_context, read_all

Start = Callable[..., Culvert]

REUSED = r"LOG6\[\S+\]: TLS accepted: previous session reused"


def welcome(certificates: Certificates, options: str = "") -> str:
    """A server service that greets."""
    return (
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n{options}"
    )


class Returning:
    """A client that comes back with the session of its last visit."""

    def __init__(self, daemon: Culvert, peers: Peers, version: str) -> None:
        self._daemon = daemon
        self._peers = peers
        self._context = client_context(version)
        self._session: SSL.Session | None = None

    def visit(self) -> None:
        """One connection, to its orderly end on both sides."""
        sock = self._peers.dial(self._daemon.port("s"))
        peer = TlsPeer(sock, self._context, server=False)
        if self._session is not None:
            peer.engine.set_session(self._session)
        peer.handshake()
        assert read_all(peer) == b"welcome\n"
        self._session = peer.engine.get_session()
        peer.end()
        sock.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_resumes_on_whichever_worker_a_client_lands(
    *, culvert: Start, certificates: Certificates, peers: Peers, version: str, workers: int
) -> None:
    daemon = culvert(welcome(certificates), workers=workers)
    client = Returning(daemon, peers, version)
    for _ in range(13):
        client.visit()
    eventually(lambda: len(daemon.log.find(REUSED)) == 12, "twelve resumed sessions", timeout=5)
    assert len(daemon.log.find(r"LOG6\[\S+\]: TLS accepted: new session negotiated")) == 1


def test_a_server_with_client_certificates_resumes(
    culvert: Start, certificates: Certificates, peers: Peers, version: str
) -> None:
    """What the session says of the client stays: the program is told the same name."""
    daemon = culvert(
        f"[s]\naccept = 127.0.0.1:0\nexec = /usr/bin/env\n"
        f"verifyChain = yes\nCAfile = {certificates.ca.cert}\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )
    context = client_context(version, leaf=certificates.client)
    session = None
    for _ in range(3):
        peer = TlsPeer(peers.dial(daemon.port("s")), context, server=False)
        if session is not None:
            peer.engine.set_session(session)
        peer.handshake()
        assert b"CN=client" in read_all(peer).replace(b" = ", b"=")
        session = peer.engine.get_session()
        peer.end()
    eventually(lambda: len(daemon.log.find(REUSED)) == 2, "two resumed sessions", timeout=5)


@pytest.mark.parametrize("options", ["sessionResume = no\n", "sessionCacheTimeout = 1\n"])
def test_a_server_that_must_not_resume_or_no_more(
    *, culvert: Start, certificates: Certificates, peers: Peers, version: str, options: str
) -> None:
    daemon = culvert(welcome(certificates, options))
    client = Returning(daemon, peers, version)
    client.visit()
    if "Timeout" in options:
        time.sleep(2.2)
    client.visit()
    new = r"LOG6\[\S+\]: TLS accepted: new session negotiated"
    eventually(lambda: len(daemon.log.find(new)) == 2, "two new sessions", timeout=5)


def test_a_client_that_says_nothing_gets_its_ticket(
    culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    """TLS 1.3 tickets follow the handshake at once, not with the first data of the backend."""
    service = welcome(certificates).replace("/bin/echo", "/bin/cat").replace("execArgs = echo welcome\n", "")
    daemon = culvert(service)
    session = tmp_path / "session.pem"
    connect = [require("openssl"), "s_client", "-tls1_3", "-connect", f"127.0.0.1:{daemon.port('s')}"]
    with subprocess.Popen(
        [*connect, "-sess_out", str(session)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as client:
        try:
            eventually(lambda: session.exists() and session.stat().st_size, "a ticket", timeout=5)
        finally:
            client.kill()
    again = subprocess.run(
        [*connect, "-sess_in", str(session)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "Reused, TLSv1.3" in again.stdout


def test_a_client_resumes(culvert: Start, certificates: Certificates, version: str) -> None:
    with Greeters({"server": certificates.server}, version) as greeters:
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
        )
        assert [greeting(daemon.port("c")) for _ in range(4)] == [b"I am server"] * 4
        reused = r"LOG6\[\S+\]: TLS connected: previous session reused"
        eventually(lambda: len(daemon.log.find(reused)) == 3, "three resumed sessions", timeout=5)


def test_a_client_that_must_not_resume(culvert: Start, certificates: Certificates, version: str) -> None:
    with Greeters({"server": certificates.server}, version) as greeters:
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
            "sessionResume = no\n"
        )
        assert [greeting(daemon.port("c")) for _ in range(3)] == [b"I am server"] * 3
        new = r"LOG6\[\S+\]: TLS connected: new session negotiated"
        eventually(lambda: len(daemon.log.find(new)) == 3, "three new sessions", timeout=5)


def test_a_client_does_not_offer_one_servers_session_to_another(
    culvert: Start, certificates: Certificates
) -> None:
    """A resumed session would stand for a certificate that the second server does not have."""
    leaves = {"one": certificates.server, "two": certificates.stranger}
    with Greeters(leaves) as greeters:
        targets = "".join(f"connect = 127.0.0.1:{port}\n" for port in greeters.ports.values())
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\n{targets}failover = rr\n"
            f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
        )
        seen = [greeting(daemon.port("c")) for _ in range(6)]
        assert sorted(seen) == [b""] * 3 + [b"I am one"] * 3
