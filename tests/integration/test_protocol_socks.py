"""SOCKS inside TLS: curl through a client and a server tunnel, and what is refused to whom."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from .certificates import Certificates
from .foreground import free_port
from .harness import PATIENCE, Culvert, require
from .peers import Peers, TlsPeer, client_context, read_all, read_exactly
from .stunnel import Stunnel

Start = Callable[..., Culvert]

LOOPBACK = "SOCKS connection to the IPv4 loopback rejected"
LONG_LABEL = "x" * 64 + ".test"
"""A name that no name server is asked for: its label is too long."""


class Page(http.server.BaseHTTPRequestHandler):
    """One page for every path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


class Page6(http.server.ThreadingHTTPServer):
    """The same on IPv6."""

    address_family = socket.AF_INET6


@dataclass(frozen=True)
class World:
    """A daemon with both ends of several tunnels, and a page on each loopback."""

    daemon: Culvert
    page: int
    page6: int


def pair(name: str, certificates: Certificates, folder: str, *options: str) -> str:
    """A service [NAME-in] for plain SOCKS clients, and [NAME] behind it that serves them inside TLS."""
    return (
        f"[{name}-in]\nclient = yes\nprotocol = socks\naccept = 127.0.0.1:0\nconnect = {folder}/{name}\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
        f"[{name}-middle]\nprotocol = socks\naccept = {folder}/{name}\n"
        f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
        + "".join(f"{option}\n" for option in options)
        + f"[{name}]\nprotocol = socks\naccept = 127.0.0.1:0\n"
        f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
        + "".join(f"{option}\n" for option in options)
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    with ExitStack() as stack:
        pages = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page), Page6(("::1", 0), Page)]
        for page in pages:
            stack.callback(page.server_close)
            threading.Thread(target=page.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(page.shutdown)
        folder = tmp_path_factory.mktemp("socks")
        ports = [int(page.server_address[1]) for page in pages]
        services = (
            pair("open", certificates, str(folder), "socksAllow = 127.0.0.0/8", "socksAllow = localhost",
                 "socksAllow = ::1", "socksAllow = *.test", "TIMEOUTconnect = 1")
            + pair("closed", certificates, str(folder))
            + pair("ruled", certificates, str(folder), f"socksAllow = localhost:{ports[0]}")
        )  # fmt: skip
        daemon = stack.enter_context(Culvert(folder, services))
        yield World(daemon, ports[0], ports[1])


def curl(proxy: str, port: int, url: str) -> subprocess.CompletedProcess[str]:
    """What curl makes of a page behind a SOCKS proxy; `proxy` is its option without the dashes."""
    return subprocess.run(
        [require("curl"), "-sS", "--noproxy", "", "--max-time", "15", f"--{proxy}", f"127.0.0.1:{port}", url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("proxy", ["socks4", "socks4a", "socks5", "socks5-hostname"])
def test_curl_through_both_tunnels(world: World, proxy: str, host: str) -> None:
    ran = curl(proxy, world.daemon.port("open-in"), f"http://{host}:{world.page}/")
    assert ran.stdout == "hello", ran.stderr


@pytest.mark.parametrize("proxy", ["socks5", "socks5-hostname"])
def test_curl_to_an_ipv6_address(world: World, proxy: str) -> None:
    ran = curl(proxy, world.daemon.port("open-in"), f"http://[::1]:{world.page6}/")
    assert ran.stdout == "hello", ran.stderr


@pytest.mark.parametrize(
    ("proxy", "host", "what"),
    [
        ("socks5", "127.0.0.1", "the IPv4 loopback"),
        ("socks5", "[::1]", "the IPv6 loopback"),
        ("socks5-hostname", "127.1", "the IPv4 loopback"),
        ("socks4a", "127.0.0.1", "the IPv4 loopback"),
    ],
)
def test_loopback_is_refused_and_curl_told(world: World, proxy: str, host: str, what: str) -> None:
    mark = world.daemon.log.mark()
    ran = curl(proxy, world.daemon.port("closed-in"), f"http://{host}:{world.page}/")
    assert ran.returncode == 97
    assert ("(2)" if proxy.startswith("socks5") else "(91)") in ran.stderr
    world.daemon.await_log(rf"LOG3\[\d+\]: SOCKS connection to {what} rejected$", since=mark)


def test_a_name_of_the_loopback_is_refused(world: World) -> None:
    mark = world.daemon.log.mark()
    ran = curl("socks5-hostname", world.daemon.port("closed-in"), f"http://localhost:{world.page}/")
    assert "(2)" in ran.stderr
    world.daemon.await_log(r"LOG3\[\d+\]: SOCKS connection to the IPv[46] loopback rejected$", since=mark)


def test_a_rule_permits_its_target_alone(world: World) -> None:
    port = world.daemon.port("ruled-in")
    assert curl("socks5-hostname", port, f"http://localhost:{world.page}/").stdout == "hello"
    for url in (f"http://localhost:{world.page6}/", f"http://127.0.0.1:{world.page}/"):
        mark = world.daemon.log.mark()
        assert "(2)" in curl("socks5-hostname", port, url).stderr
        world.daemon.await_log(
            r"LOG3\[\d+\]: SOCKS connection to \S+ port \d+ rejected: no socksAllow", since=mark
        )


def test_a_connect_that_is_refused(world: World) -> None:
    ran = curl("socks5", world.daemon.port("open-in"), f"http://127.0.0.1:{free_port()}/")
    assert "(5)" in ran.stderr


def test_a_name_that_is_unknown(world: World) -> None:
    ran = curl("socks5-hostname", world.daemon.port("open-in"), f"http://{LONG_LABEL}:80/")
    assert "(4)" in ran.stderr


def test_a_connect_that_takes_too_long(world: World, peers: Peers) -> None:
    busy = peers.listen(backlog=0)
    peers.dial(busy.port)  # the queue's one place
    mark = world.daemon.log.mark()
    ran = curl("socks5", world.daemon.port("open-in"), f"http://127.0.0.1:{busy.port}/")
    assert "(4)" in ran.stderr
    world.daemon.await_log(r"LOG3\[\d+\]: .*TIMEOUTconnect", since=mark)


def asked(world: World, peers: Peers, service: str, request: bytes) -> TlsPeer:
    """A TLS client that has sent this."""
    peer = peers.tls(world.daemon.port(service), client_context())
    peer.send(request)
    return peer


def test_a_request_in_single_bytes_and_data_behind_it(world: World, peers: Peers) -> None:
    """Each byte has a record of its own; the last one comes together with what is for the target."""
    peer = peers.tls(world.daemon.port("open"), client_context())
    request = b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01" + world.page.to_bytes(2, "big")
    for byte in request[:-1]:
        peer.send(bytes((byte,)))
    peer.send(request[-1:] + b"GET / HTTP/1.0\r\n\r\n")
    assert read_exactly(peer, 12) == b"\x05\0\x05\0\0\x01" + bytes(6)
    assert read_all(peer).endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    ("request_", "reply", "reason"),
    [
        (b"\x05\x01\x02", b"\x05\xff", "no method"),
        (b"\x05\x01\x00\x05\x02\x00\x01\x7f\0\0\x01\0\x50", b"\x05\0\x05\x07\0\x01" + bytes(6), "BIND"),
        (
            b"\x05\x01\x00\x05\x03\x00\x01\x7f\0\0\x01\0\x50",
            b"\x05\0\x05\x07\0\x01" + bytes(6),
            "UDP ASSOCIATE",
        ),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\0\x05\x08\0\x01" + bytes(6), "unknown type 9"),
        (b"\x04\x01\x00\x50\0\0\0\x01" + b"u" * 300, b"\0\x5b" + bytes(6), "user name of more than 255"),
        (b"GET / HTTP/1.0\r\n\r\n", b"", "does not speak SOCKS"),
    ],
    ids=["no-method", "bind", "udp", "type", "flood", "http"],
)
def test_what_is_refused_is_told_and_logged_once(
    world: World, peers: Peers, request_: bytes, reply: bytes, reason: str
) -> None:
    mark = world.daemon.log.mark()
    peer = asked(world, peers, "open", request_)
    assert read_exactly(peer, len(reply)) == reply
    assert peer.recv() == b""
    world.daemon.await_log(rf"LOG3.*Negotiation failed for 127\.0\.0\.1:\d+.*: .*{reason}", since=mark)
    assert len(world.daemon.log.find(reason, mark)) == 1


@pytest.mark.parametrize(
    "address",
    ["::ffff:127.0.0.1", "::ffff:0.0.0.0", "::", "0.0.0.0", "169.254.169.254", "fe80::1", "127.255.0.9"],
)
def test_no_form_of_the_machines_addresses_gets_through(world: World, peers: Peers, address: str) -> None:
    packed = ipaddress.ip_address(address).packed
    kind = b"\x01" if len(packed) == 4 else b"\x04"
    request = b"\x05\x01\x00\x05\x01\x00" + kind + packed + world.page.to_bytes(2, "big")
    peer = asked(world, peers, "closed", request)
    assert read_exactly(peer, 12) == b"\x05\0\x05\x02\0\x01" + bytes(6)


@pytest.mark.parametrize("prefix", [b"\x01", b"\x04" + bytes(10) + b"\xff\xff"], ids=["plain", "wrapped"])
def test_an_own_address_is_refused(world: World, peers: Peers, prefix: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.77", 9))  # sends nothing: the kernel chooses a source address
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    mark = world.daemon.log.mark()
    request = b"\x05\x01\x00\x05\x01\x00" + prefix + socket.inet_aton(own) + b"\0\x50"
    assert read_exactly(asked(world, peers, "closed", request), 4) == b"\x05\0\x05\x02"
    world.daemon.await_log(
        r"LOG3\[\d+\]: SOCKS connection to an address of this machine rejected$", since=mark
    )


def test_a_client_that_goes_in_the_middle(world: World, peers: Peers) -> None:
    mark = world.daemon.log.mark()
    asked(world, peers, "open", b"\x05\x01\x00\x05\x01").end()
    world.daemon.await_log(r"LOG3.*Negotiation failed for .*closed the connection", since=mark)


def test_stunnel_as_the_client(
    world: World, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As its manual has it, without `protocol`: with it, stunnel asks for where a redirected packet went."""
    text = (
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{world.daemon.port('open')}\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
    )
    with Stunnel(tmp_path_factory.mktemp("stunnel"), text) as other:
        assert curl("socks5", other.ports["c"], f"http://127.0.0.1:{world.page}/").stdout == "hello"


def test_stunnel_as_the_server(
    culvert: Start, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It takes no rule that would permit a loopback target, so its refusal is what comes through."""
    text = (
        f"[s]\nprotocol = socks\naccept = 127.0.0.1:0\n"
        f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
    )
    with Stunnel(tmp_path_factory.mktemp("stunnel"), text) as other:
        daemon = culvert(
            f"[c]\nclient = yes\nprotocol = socks\naccept = 127.0.0.1:0\n"
            f"connect = 127.0.0.1:{other.ports['s']}\n"
            f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
        )
        ran = curl("socks5", daemon.port("c"), "http://127.0.0.1:9/")
        assert ran.returncode == 97
        other.log.wait(LOOPBACK)
