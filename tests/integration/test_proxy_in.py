"""PROXY headers from HAProxy and nginx: the client that they name is the one that is logged and checked."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import Culvert, eventually
from .outcomes import WELCOME, Sayer
from .peers import Peers, PlainPeer, TlsPeer, client_context, read_all, reset, server_context
from .proxies import CLIENT, HAProxy, Listening, Nginx, come, fields, services, shown

Start = Callable[..., Culvert]

TRUSTED = "acceptProxy = yes\ntrustProxy = 127.0.0.1\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"
BINARY = SIGNATURE + bytes.fromhex("2111000cc0000207c6336401c35001bb")
LOCAL = SIGNATURE + bytes.fromhex("20000000")
SIX = SIGNATURE + bytes.fromhex(
    "21210024" + "20010db8" + "00" * 11 + "07" + "20010db8" + "00" * 11 + "01" + "c35001bb"
)

MALFORMED = (
    (b"GET / HTTP/1.0\r\n\r\n", "it sent no PROXY header"),
    (b"\x16\x03\x01\x02\x00\x01\x00", "it sent no PROXY header"),
    (b"PROXY TCP4 192.0.2.7\r\n", "it sent a malformed PROXY header of version 1"),
    (b"PROXY TCP4 " + b"1" * 200, "it sent a PROXY header of more than 107 bytes"),
    (SIGNATURE + b"\x31\x11\x00\x00", "it sent a PROXY header of an unknown version or command"),
    (SIGNATURE + b"\x21\x11\x00\x04abcd", "it sent a malformed PROXY header of version 2"),
    (SIGNATURE + b"\x21\x11\xff\xff", "it sent a PROXY header of 65551 bytes: at most 16384 are taken"),
)
"""What a proxy sends in place of a header, and what is said of it."""

KINDS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2-ssl": "send-proxy-v2-ssl",
    "v2-more": "send-proxy-v2 proxy-v2-options crc32c,ssl,ssl-cipher,cert-key,cert-sig,cert-cn,authority",
}
"""Options of HAProxy's for its server."""

REMOTE = "exec = /bin/sh\nexecArgs = sh -c echo${IFS}$REMOTE_HOST:$REMOTE_PORT"


@dataclass(frozen=True)
class World:
    """A daemon that takes headers from 127.0.0.1, and HAProxy in front of it there."""

    daemon: Culvert
    context: SSL.Context
    backend: Sayer
    haproxy: Listening

    def open(self, service: str, first: bytes, source: str = "127.0.0.1") -> TlsPeer:
        """A TLS client that sends these bytes in front of its handshake."""
        sock = come(self.daemon.port(service), source=source)
        sock.sendall(first)
        return TlsPeer(sock, self.context, server=False)

    def answer(self, service: str, first: bytes) -> str:
        """What a program behind a service says to such a client."""
        peer = self.open(service, first)
        peer.handshake()
        said = read_all(peer).decode().strip()
        peer.close()
        return said


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("proxy-in")
    leaf = certificates.server
    credentials = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    with ExitStack() as stack:
        backend = stack.enter_context(Sayer(WELCOME))
        connect = f"connect = 127.0.0.1:{backend.port}\n"
        sections = {
            "remote": TRUSTED + REMOTE,
            "on": TRUSTED + connect + "proxyProtocol = v2",
            "hasty": TRUSTED + connect + "TIMEOUTbusy = 0.5",
            "closed": TRUSTED + connect + "denyFrom = 192.0.2.0/24",
            "open": TRUSTED + connect + "allowFrom = 192.0.2.0/24",
            "flooded": TRUSTED + connect,
        } | {f"bad{case}": TRUSTED + connect for case in range(len(MALFORMED))}
        text = services(sections, credentials) + (
            f"[unix]\naccept = {folder}/socket\n{REMOTE}\nacceptProxy = yes\n{credentials}"
            f"[target]\naccept = 127.0.0.1:0\n{REMOTE}\n{credentials}"
        )
        daemon = stack.enter_context(Culvert(folder, text))
        ports = stack.enter_context(Listening(tuple(KINDS)))
        stack.enter_context(HAProxy(folder, _haproxy(daemon, ports, certificates), ports))
        yield World(daemon, client_context(trust=certificates.ca.cert), backend, ports)


def _haproxy(daemon: Culvert, ports: Listening, certificates: Certificates) -> str:
    """Proxies that pass TLS on as it comes, but for the one that tells of its own."""
    text = ""
    for kind, options in KINDS.items():
        ends, to = "", ""
        if "ssl" in options:
            ends = f" ssl crt {certificates.server.bundle}"
            to = f" ssl verify required ca-file {certificates.ca.cert}"
        text += (
            f"listen {kind}\n mode tcp\n bind fd@{ports.fd(kind)}{ends}\n"
            f" server s 127.0.0.1:{daemon.port('remote')} {options}{to}\n"
        )
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_haproxy_tells_the_client(world: World, kind: str) -> None:
    mark = world.daemon.log.mark()
    sock = come(world.haproxy.port(kind))
    address = shown(sock)
    peer = TlsPeer(sock, world.context, server=False)
    peer.handshake()
    assert read_all(peer).decode().strip() == address
    peer.close()
    assert address.startswith(CLIENT)
    world.daemon.await_log(rf"Service \[remote\] accepted connection from {re.escape(address)}$", since=mark)


def test_nginx_tells_the_client(world: World, tmp_path: Path) -> None:
    with Listening(("nginx",)) as ports:
        text = (
            f"stream {{ server {{ listen 127.0.0.1:{ports.port('nginx')}; proxy_protocol on;\n"
            f"proxy_pass 127.0.0.1:{world.daemon.port('remote')}; }} }}\n"
        )
        with Nginx(tmp_path, text, ports, ("ngx_stream_module.so",)):
            sock = come(ports.port("nginx"))
            address = shown(sock)
            peer = TlsPeer(sock, world.context, server=False)
            peer.handshake()
            assert read_all(peer).decode().strip() == address
            peer.close()


@pytest.mark.parametrize(
    ("header", "address"),
    [(LINE, "192.0.2.7:50000"), (BINARY, "192.0.2.7:50000"), (SIX, "2001:db8::7:50000")],
)
def test_the_named_client_is_the_programs(world: World, header: bytes, address: str) -> None:
    assert world.answer("remote", header) == address


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN whatever\r\n"])
def test_a_proxy_that_names_nobody_is_itself_the_client(world: World, header: bytes) -> None:
    assert world.answer("remote", header).startswith("127.0.0.1:")


@pytest.mark.parametrize("header", [LINE, BINARY])
def test_a_header_may_come_byte_by_byte(world: World, header: bytes) -> None:
    sock = come(world.daemon.port("remote"), source="127.0.0.1")
    for byte in header:
        sock.sendall(bytes((byte,)))
    peer = TlsPeer(sock, world.context, server=False)
    peer.handshake()
    assert read_all(peer).decode().strip() == "192.0.2.7:50000"
    peer.close()


@pytest.mark.parametrize("header", [LINE, BINARY])
def test_a_header_in_one_segment_with_the_handshake(world: World, header: bytes) -> None:
    peer = TlsPeer(come(world.daemon.port("remote"), source="127.0.0.1"), world.context, server=False)
    with pytest.raises(SSL.WantReadError):
        peer.engine.do_handshake()
    peer.sock.sendall(header + peer.pending())
    peer.handshake()
    assert read_all(peer).decode().strip() == "192.0.2.7:50000"
    peer.close()


def test_the_named_client_is_told_on(world: World) -> None:
    world.backend.heard.clear()
    peer = world.open("on", LINE)
    peer.handshake()
    header = eventually(world.backend.everything, "the PROXY header")
    peer.close()
    assert header[16:28] == BINARY[16:]
    assert 0x20 in fields(header)


def test_a_header_over_a_unix_socket_needs_no_trusted_address(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(world.daemon.folder / "socket"))
        sock.sendall(LINE)
        peer = TlsPeer(sock, world.context, server=False)
        peer.handshake()
        assert read_all(peer).decode().strip() == "192.0.2.7:50000"


def refused(world: World, service: str, first: bytes, source: str = "127.0.0.1") -> re.Match[str]:
    """Why a client was refused, who sees no more than an end."""
    mark = world.daemon.log.mark()
    sock = come(world.daemon.port(service), source=source)
    with contextlib.suppress(OSError):
        sock.sendall(first)
        assert sock.recv(1) == b""
    sock.close()
    return world.daemon.await_log(rf"Service \[{service}\] refused connection from (\S+): (.*)", since=mark)


@pytest.mark.parametrize("case", range(len(MALFORMED)), ids=[reason for _, reason in MALFORMED])
def test_a_malformed_header_ends_the_connection(world: World, case: int) -> None:
    first, reason = MALFORMED[case]
    mark = world.daemon.log.mark()
    found = refused(world, f"bad{case}", first)
    assert found[1].startswith("127.0.0.1:")
    assert found[2] == reason
    assert len(world.daemon.log.find(rf"\[bad{case}\]|LOG[0-4]", mark)) == 1


def test_a_header_that_does_not_come_in_time(world: World) -> None:
    assert "TIMEOUTbusy (0.5 s) exceeded" in refused(world, "hasty", LINE[:20])[2]


def test_a_proxy_that_goes_away_without_a_header(world: World) -> None:
    mark = world.daemon.log.mark()
    sock = come(world.daemon.port("on"), source="127.0.0.1")
    sock.sendall(b"PROXY TCP4")
    sock.close()
    world.daemon.await_log(r"\[on\] refused connection .*closed the connection before a PROXY", since=mark)


def test_a_proxy_that_looks_whether_somebody_is_there(world: World) -> None:
    """A health check without a byte is for debugging."""
    mark = world.daemon.log.mark()
    come(world.daemon.port("on"), source="127.0.0.1").close()
    world.daemon.await_log(r"LOG7\[\d+\]: Connection closed: 0 byte", since=mark)
    assert not world.daemon.log.find(r"LOG[3-5]\[\d+\]", since=mark)


def test_nobody_else_may_come(world: World) -> None:
    """Whoever is no proxy could claim any address; he is refused with a header and without one."""
    reason = "it is none of the proxies that trustProxy names"
    found = refused(world, "remote", LINE, CLIENT)
    assert (found[1].partition(":")[0], found[2]) == (CLIENT, reason)


def test_the_named_client_is_the_one_that_is_denied(world: World) -> None:
    found = refused(world, "closed", LINE)
    assert found[1] == "192.0.2.7:50000"
    assert found[2] == "denyFrom names its address"


def test_the_proxy_itself_is_judged_where_it_names_nobody(world: World) -> None:
    peer = world.open("open", LINE)
    peer.handshake()
    peer.close()
    assert refused(world, "open", LOCAL)[2] == "allowFrom does not name its address"


def test_a_client_takes_headers_too(culvert: Start, certificates: Certificates, peers: Peers) -> None:
    target = peers.listen()
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{target.port}\n{TRUSTED}"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\nproxyProtocol = v1\n"
    )
    plain = PlainPeer(come(daemon.port("c"), source="127.0.0.1"))
    plain.send(BINARY + b"hello")
    sock = target.accept()
    assert sock.recv(len(LINE)) == LINE
    tls = TlsPeer(sock, server_context(certificates.server), server=True)
    tls.handshake()
    assert tls.recv() == b"hello"
    plain.close()


def test_a_flood_of_refusals_has_a_line_a_second(world: World) -> None:
    port, log = world.daemon.port("flooded"), world.daemon.log
    for _ in range(30):
        reset(come(port))
    first = world.daemon.await_log(r"\[flooded\] refused connection")
    assert "more like it" not in first.string

    def told() -> int:
        reset(come(port))
        found = log.find(r"\[flooded\] refused .* \((\d+) more like it since the last such line\)$")
        return int(found[0][1]) if found else 0

    assert eventually(told, "the count of those that were left out") >= 29
    assert len(log.find(r"\[flooded\] refused")) == 2
