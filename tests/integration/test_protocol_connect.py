"""CONNECT through tinyproxy, through a proxy with NTLM as a script, and what becomes of SNI and sessions."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from .certificates import Certificates
from .foreground import Tinyproxy
from .harness import PATIENCE, Culvert, require
from .peers import Listener, Peers, TlsPeer, background, read_exactly, server_context
from .stunnel import Stunnel

Start = Callable[..., Culvert]

CHALLENGE = base64.b64encode(
    bytes.fromhex(
        "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef"
        "00000000000000002400240044000000060070170000000f5300650072007600"
        "6500720002000c0044006f006d00610069006e0001000c005300650072007600"
        "6500720000000000"
    )
)
"""The challenge of the example in MS-NLMP, 4.2.4."""


@pytest.fixture(scope="module")
def tinyproxy() -> Iterator[Tinyproxy]:
    with Tinyproxy() as proxy:
        yield proxy


def tunnel(proxy: int, target: str, certificates: Certificates, *options: str) -> str:
    lines = [
        "[c]",
        "client = yes",
        "accept = 127.0.0.1:0",
        f"connect = 127.0.0.1:{proxy}",
        "protocol = connect",
        f"protocolHost = {target}",
        f"CAfile = {certificates.ca.cert}",
        "verifyChain = yes",
        "checkHost = localhost",
        *options,
    ]
    return "\n".join(lines) + "\n"


def serve(listener: Listener, certificates: Certificates) -> Future[bytes | None]:
    """Answers one connection inside TLS; gives the server name that it asked for."""

    def work() -> bytes | None:
        peer = TlsPeer(listener.accept(), server_context(certificates.server), server=True)
        peer.handshake()
        assert read_exactly(peer, 4) == b"ping"
        peer.send(b"pong")
        name: bytes | None = peer.engine.get_servername()
        return name

    return background(work)


def head(sock: socket.socket) -> bytes:
    """A request's head."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = sock.recv(1)
        assert more, data
        data += more
    return data


def test_basic_authentication_to_tinyproxy(
    tinyproxy: Tinyproxy, culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    target = peers.listen()
    served = serve(target, certificates)
    credentials = (f"protocolUsername = {tinyproxy.username}", f"protocolPassword = {tinyproxy.password}")
    daemon = culvert(tunnel(tinyproxy.port, f"localhost:{target.port}", certificates, *credentials))
    sock = peers.dial(daemon.port("c"))
    sock.sendall(b"ping")
    assert sock.recv(4) == b"pong"
    assert served.result(PATIENCE) == b"localhost"  # the target's name, and not the proxy's
    secret = base64.b64encode(f"{tinyproxy.username}:{tinyproxy.password}".encode()).decode()
    assert not daemon.log.find(f"{tinyproxy.password}|{secret}")


def test_without_a_password_the_proxys_schemes_are_told(
    tinyproxy: Tinyproxy, culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    daemon = culvert(tunnel(tinyproxy.port, "localhost:9", certificates))
    assert peers.dial(daemon.port("c")).recv(1) == b""
    daemon.await_log(r"LOG3.*CONNECT request rejected: 407 .*\(the proxy asks for Basic\)")


def test_the_wrong_password_stays_out_of_the_log(
    tinyproxy: Tinyproxy, culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    credentials = ("protocolUsername = someone", "protocolPassword = something-wrong")
    daemon = culvert(tunnel(tinyproxy.port, "localhost:9", certificates, *credentials))
    assert peers.dial(daemon.port("c")).recv(1) == b""
    daemon.await_log("LOG3.*CONNECT request rejected: 401 Unauthorized")
    assert not daemon.log.find("something-wrong")


def test_a_target_that_the_proxy_cannot_reach(
    tinyproxy: Tinyproxy, culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    credentials = (f"protocolUsername = {tinyproxy.username}", f"protocolPassword = {tinyproxy.password}")
    daemon = culvert(tunnel(tinyproxy.port, "127.0.0.1:9", certificates, *credentials))
    assert peers.dial(daemon.port("c")).recv(1) == b""
    daemon.await_log(r"LOG3.*Negotiation failed for 127\.0\.0\.1:\d+.*: CONNECT request rejected: 50\d ")


def test_ntlm_over_one_connection(culvert: Start, certificates: Certificates, peers: Peers) -> None:
    proxy = peers.listen()
    options = (
        "protocolAuthentication = ntlm",
        "protocolDomain = Domain",
        "protocolUsername = User",
        "protocolPassword = Password",
        "protocolHeader = X-Tenant: blue",
    )
    daemon = culvert(tunnel(proxy.port, "[::1]:4433", certificates, *options))
    client = peers.dial(daemon.port("c"))
    sock = proxy.accept()
    first = head(sock)
    assert first.startswith(b"CONNECT [::1]:4433 HTTP/1.1\r\nHost: [::1]:4433\r\n")
    assert b"\r\nX-Tenant: blue\r\n" in first
    sock.sendall(
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM " + CHALLENGE + b"\r\n"
        b"Content-Length: 5\r\n\r\nsorry"
    )
    proof = re.search(rb"Proxy-Authorization: NTLM (\S+)", head(sock))
    assert proof is not None
    message = base64.b64decode(proof[1])
    assert message.startswith(b"NTLMSSP\0\x03\0\0\0")
    assert "User".encode("utf-16-le") in message
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    tls = TlsPeer(sock, server_context(certificates.server), server=True)
    tls.handshake()
    assert tls.engine.get_servername() is None  # an address is no server name
    client.sendall(b"ping")
    assert read_exactly(tls, 4) == b"ping"
    assert not daemon.log.find("Password|" + re.escape(proof[1].decode()))


def test_a_flood_of_header_lines_ends_it(culvert: Start, certificates: Certificates, peers: Peers) -> None:
    proxy = peers.listen()
    daemon = culvert(tunnel(proxy.port, "localhost:4433", certificates))
    client = peers.dial(daemon.port("c"))
    sock = proxy.accept()
    head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-Flood: yes\r\n" * 2000)
    assert client.recv(1) == b""
    daemon.await_log("LOG3.*more than 100 header lines")


def test_stunnel_behind_tinyproxy(
    tinyproxy: Tinyproxy, culvert: Start, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And stunnel's own CONNECT before Culvert's server, the other way around."""
    credentials = (f"protocolUsername = {tinyproxy.username}", f"protocolPassword = {tinyproxy.password}")
    server = culvert(
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo from-culvert\n"
        f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
    )
    text = (
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo from-stunnel\n"
        f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
        + tunnel(tinyproxy.port, f"localhost:{server.port('s')}", certificates, *credentials)
    )
    with Stunnel(tmp_path_factory.mktemp("stunnel"), text) as other:
        target = f"localhost:{other.ports['s']}"
        daemon = culvert(tunnel(tinyproxy.port, target, certificates, *credentials))
        for port, words in ((daemon.port("c"), b"from-stunnel\n"), (other.ports["c"], b"from-culvert\n")):
            ran = subprocess.run(
                [require("socat"), "-t5", "-u", f"TCP:127.0.0.1:{port}", "-"],
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            assert ran.stdout == words
