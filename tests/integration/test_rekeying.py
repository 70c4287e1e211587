"""The keys change in the middle of the data: KeyUpdate in TLS 1.3, renegotiation in TLS 1.2."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import PATIENCE, Culvert, LogLines, require
from .peers import (
    Peers,
    PlainPeer,
    background,
    digest,
    pattern,
    read_all,
    read_exactly,
)
from .tunnels import Tunnels

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def tunnels(
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    event_loop_environment: dict[str, str],
) -> Iterator[Tunnels]:
    """Tunnels as they are by default, and tunnels that refuse to renegotiate."""
    variants = {"default": "", "fixed": "renegotiation = no"}
    folder = tmp_path_factory.mktemp("rekeying")
    with Tunnels(folder, certificates, variants, event_loop_environment) as tunnels:
        yield tunnels


def test_renegotiation_while_data_flows(tunnels: Tunnels, role: str) -> None:
    pair = tunnels.open(role, "TLSv1.2")
    down, up = pattern(6 * MEGABYTE), pattern(100_000, seed=2)
    renegotiated = threading.Event()
    received = bytearray()

    def receive() -> bytes:
        while data := pair.tls.recv():
            received.extend(data)
            if pair.tls.engine.total_renegotiations() and not pair.tls.engine.renegotiate_pending():
                renegotiated.set()
        return bytes(received)

    pair.tls.send(up)
    pair.tls.renegotiate()
    receiving = background(receive)
    sending = background(pair.plain.send, down)
    assert renegotiated.wait(PATIENCE)
    sending.result(PATIENCE)
    pair.tls.send(up)
    assert digest(read_exactly(pair.plain, 2 * len(up))) == digest(up + up)
    pair.plain.end()
    assert digest(receiving.result(PATIENCE)) == digest(down)
    pair.tls.end()
    assert read_all(pair.plain) == b""
    pair.close()


def test_renegotiation_refused_is_answered_by_an_alert(tunnels: Tunnels, role: str) -> None:
    pair = tunnels.open(role, "TLSv1.2", "fixed")
    pair.plain.send(b"before")
    assert read_exactly(pair.tls, 6) == b"before"
    pair.tls.renegotiate()
    with pytest.raises(SSL.Error, match="renegotiation|alert"):
        pair.tls.recv()
    pair.close()


def openssl(*arguments: str) -> subprocess.Popen[str]:
    """An interactive openssl that reads commands and data from its standard input."""
    return subprocess.Popen(
        [require("openssl"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def exchange_while_keys_change(
    process: subprocess.Popen[str], output: LogLines, plain: socket.socket
) -> None:
    """Lines go both ways between the commands: `K` asks for new keys both ways, `k` changes one's own."""
    assert process.stdin is not None
    peer = PlainPeer(plain)
    for number, command in enumerate("KkKKk"):
        process.stdin.write(f"line {number}\n")
        process.stdin.flush()
        assert read_exactly(peer, 7) == f"line {number}\n".encode()
        mark = output.mark()
        process.stdin.write(f"{command}\n")
        process.stdin.flush()
        output.wait("KEYUPDATE", since=mark)
        peer.send(f"answer {number}\n".encode())
        output.wait(f"answer {number}", since=mark)


def test_key_updates_by_a_client(tunnels: Tunnels) -> None:
    port = tunnels.daemon.port("default-server-TLSv1.3")
    with openssl("s_client", "-connect", f"127.0.0.1:{port}") as client:
        assert client.stdout is not None
        output = LogLines(client.stdout)
        plain = tunnels.target("server", "TLSv1.3").accept()
        exchange_while_keys_change(client, output, plain)
        plain.close()
        client.kill()
        output.wait_end()


def test_key_updates_by_a_server(
    culvert: Callable[..., Culvert],
    event_loop_environment: dict[str, str],
    certificates: Certificates,
    peers: Peers,
) -> None:
    credentials = ("-cert", str(certificates.server.cert), "-key", str(certificates.server.key))
    with openssl("s_server", "-accept", "127.0.0.1:0", "-tls1_3", *credentials) as server:
        assert server.stdout is not None
        output = LogLines(server.stdout)
        port = output.wait(r"ACCEPT 127\.0\.0\.1:(\d+)").group(1)
        service = f"[keys]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
        daemon = culvert(service, environment=event_loop_environment)
        plain = peers.dial(daemon.port("keys"))
        exchange_while_keys_change(server, output, plain)
        plain.close()
        server.kill()
        output.wait_end()
