"""The NetBIOS session request for TLS, with stunnel4 at the other end; no CIFS server of today speaks it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert, require
from .peers import Peers
from .stunnel import Stunnel

Start = Callable[..., Culvert]


def server(certificates: Certificates) -> str:
    return (
        "[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo from-the-server\nprotocol = cifs\n"
        f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
    )


def client(port: int, certificates: Certificates) -> str:
    return (
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\nprotocol = cifs\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
    )


def heard(port: int) -> bytes:
    """What comes through a client tunnel."""
    command = [require("socat"), "-t5", "-u", f"TCP:127.0.0.1:{port}", "-"]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).stdout


@pytest.mark.parametrize("end", ["client", "server", "both"])
def test_a_tunnel_with_culvert_as(
    end: str, culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    if end == "client":
        with Stunnel(tmp_path, server(certificates)) as other:
            assert heard(culvert(client(other.ports["s"], certificates)).port("c")) == b"from-the-server\n"
        return
    port = culvert(server(certificates)).port("s")
    if end == "server":
        with Stunnel(tmp_path, client(port, certificates)) as other:
            assert heard(other.ports["c"]) == b"from-the-server\n"
    else:
        assert heard(culvert(client(port, certificates)).port("c")) == b"from-the-server\n"


def test_what_is_no_session_request_is_refused(
    culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    daemon = culvert(server(certificates))
    sock = peers.dial(daemon.port("s"))
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert sock.recv(16) == b"\x83\0\0\x01\x8f"
    assert sock.recv(16) == b""
    daemon.await_log(
        r"LOG3.*Negotiation failed for 127\.0\.0\.1:\d+.*: the client does not open a NetBIOS session"
    )
