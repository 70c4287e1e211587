"""The keys change in the middle of the data: KeyUpdate in TLS 1.3, renegotiation in TLS 1.2."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import PATIENCE, Culvert, LogLines, eventually, require
from .peers import (
    Peers,
    PlainPeer,
    TruncatedError,
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
    eventually(lambda: renegotiated.is_set() or receiving.done(), "the renegotiation's end")
    if receiving.done():
        receiving.result()
    sending.result(PATIENCE)
    pair.tls.send(up)
    assert digest(read_exactly(pair.plain, 2 * len(up))) == digest(up + up)
    pair.plain.end()
    assert digest(receiving.result(PATIENCE)) == digest(down)
    pair.tls.end()
    assert read_all(pair.plain) == b""
    pair.close()


def test_a_client_that_renegotiates_again_and_again_is_cut_off(tunnels: Tunnels) -> None:
    """Each time costs a server more than the client (CVE-2011-1473)."""
    pair = tunnels.open("server", "TLSv1.2")
    with pytest.raises((ConnectionError, TruncatedError)):
        for _ in range(100):
            pair.tls.renegotiate()
            pair.plain.send(b"on")
            assert read_exactly(pair.tls, 2) == b"on"
    assert 3 <= pair.tls.engine.total_renegotiations() <= 6
    pair.close()


def test_a_client_that_must_not_renegotiate_gets_an_alert(tunnels: Tunnels) -> None:
    pair = tunnels.open("server", "TLSv1.2", "fixed")
    pair.plain.send(b"before")
    assert read_exactly(pair.tls, 6) == b"before"
    pair.tls.renegotiate()
    with pytest.raises(SSL.Error, match=r"renegotiation|alert"):
        pair.tls.recv()
    pair.close()


def test_a_server_that_asks_in_vain_for_a_renegotiation_is_refused(tunnels: Tunnels) -> None:
    """A client may answer a HelloRequest by an alert or not at all (RFC 5246, 7.4.1.1)."""
    pair = tunnels.open("client", "TLSv1.2", "fixed")
    pair.tls.renegotiate()
    try:
        for _ in range(2):
            pair.plain.send(b"data goes on")
            assert read_exactly(pair.tls, 12) == b"data goes on"
    except SSL.Error as error:
        assert "renegotiation" in str(error)
    pair.close()


class OpenSsl:
    """An interactive openssl: data and commands go in by its standard input, one a line."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [require("openssl"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self.output = LogLines(self._process.stdout)

    def say(self, line: str) -> None:
        """One line of data, or a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()
        self.output.wait_end()


@pytest.fixture
def openssl() -> Iterator[Callable[..., OpenSsl]]:
    """Starts openssl commands; they end with the test."""
    running: list[OpenSsl] = []

    def start(*arguments: str) -> OpenSsl:
        running.append(OpenSsl(*arguments))
        return running[-1]

    yield start
    for process in running:
        process.kill()


def exchange_while_keys_change(process: OpenSsl, plain: PlainPeer) -> None:
    """Lines go both ways around the commands: `K` asks for new keys both ways, `k` changes one's own."""
    process.say("hello")
    assert read_exactly(plain, 6) == b"hello\n", "commands count only after the handshake"
    for number, command in enumerate("KkKKk"):
        mark = process.output.mark()
        process.say(command)
        plain.send(f"before {number}\n".encode())
        process.output.wait(f"before {number}", since=mark)
        process.output.wait(">>>.*KeyUpdate", since=mark)
        process.say(f"line {number}")
        assert read_exactly(plain, 7) == f"line {number}\n".encode()
        plain.send(f"after {number}\n".encode())
        process.output.wait(f"after {number}", since=mark)
        if command == "K":
            process.output.wait("<<<.*KeyUpdate", since=mark)


def test_key_updates_by_a_client(tunnels: Tunnels, openssl: Callable[..., OpenSsl]) -> None:
    port = tunnels.daemon.port("default-server-TLSv1.3")
    client = openssl("s_client", "-msg", "-connect", f"127.0.0.1:{port}")
    plain = PlainPeer(tunnels.target("server", "TLSv1.3").accept())
    exchange_while_keys_change(client, plain)
    plain.close()


def test_key_updates_by_a_server(
    *,
    culvert: Callable[..., Culvert],
    event_loop_environment: dict[str, str],
    certificates: Certificates,
    peers: Peers,
    openssl: Callable[..., OpenSsl],
) -> None:
    credentials = ("-cert", str(certificates.server.cert), "-key", str(certificates.server.key))
    server = openssl("s_server", "-msg", "-accept", "127.0.0.1:0", "-tls1_3", *credentials)
    port = server.output.wait(r"ACCEPT \S+:(\d+)").group(1)
    service = f"[keys]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
    daemon = culvert(service, environment=event_loop_environment)
    plain = PlainPeer(peers.dial(daemon.port("keys")))
    exchange_while_keys_change(server, plain)
    plain.close()
