"""PROXY headers to backends: HAProxy and nginx read the client's address from them, and more of its TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import Culvert, eventually
from .outcomes import ELSEWHERE, WELCOME, Sayer
from .peers import TlsPeer, client_context
from .pki import Pki
from .proxies import HAProxy, Listening, Nginx, ask, come, fields, services, shown, temporaries

Start = Callable[..., Culvert]

HEADERS = ("v1", "v2")

ECHO = (
    'http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] %[fc_pp_authority]"'
)


@dataclass(frozen=True)
class World:
    """A daemon in front of HAProxy and nginx, both of which tell whose request they got."""

    daemon: Culvert
    context: SSL.Context
    backend: Sayer


def _daemon(certificates: Certificates, folder: Path, ports: Listening, backend: Sayer) -> str:
    leaf, target = certificates.server, "connect = 127.0.0.1:"
    credentials = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    sections = {
        f"{peer}-{version}": f"{target}{ports.port(peer)}\nproxyProtocol = {version}"
        for peer in ("haproxy", "nginx")
        for version in HEADERS
    }
    sections["protocol"] = f"{target}{ports.port('haproxy')}\nprotocol = proxy"
    sections["raw"] = (
        f"{target}{backend.port}\nproxyProtocol = v2\nalpn = h2,http/1.1\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\nrequireCert = no"
    )
    sections["second"] = f"{target}{backend.port}\nproxyProtocol = v2"
    text = services(sections, credentials).replace(
        "[second]\naccept = 127.0.0.1:0", "[second]\nsni = plain:b.example"
    )
    for version in HEADERS:
        text += (
            f"[client-{version}]\nclient = yes\naccept = 127.0.0.1:0\n{target}{ports.port('secured')}\n"
            f"proxyProtocol = {version}\nCAfile = {certificates.ca.cert}\nverifyChain = yes\n"
            f"checkHost = localhost\n"
            f"[unix-{version}]\naccept = {folder}/{version}\n{target}{ports.port('haproxy')}\n"
            f"proxyProtocol = {version}\n{credentials}"
            f"[six-{version}]\naccept = ::1:0\n{target}{ports.port('haproxy')}\n"
            f"proxyProtocol = {version}\n{credentials}"
        )
    return text + f"[plain]\naccept = 127.0.0.1:0\n{target}{backend.port}\n{credentials}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("proxy-out")
    with ExitStack() as stack:
        ports = stack.enter_context(Listening(("haproxy", "secured")))
        nginx_ports = stack.enter_context(Listening(("nginx",)))
        backend = stack.enter_context(Sayer(WELCOME))
        sections = (
            f"frontend plain\n mode http\n bind fd@{ports.fd('haproxy')} accept-proxy\n {ECHO}\n"
            f"frontend secured\n mode http\n {ECHO}\n"
            f" bind fd@{ports.fd('secured')} accept-proxy ssl crt {certificates.server.bundle}\n"
        )
        stack.enter_context(HAProxy(folder, sections, ports))
        text = (
            f"http {{ {temporaries(folder)}\n"
            f"server {{ listen 127.0.0.1:{nginx_ports.port('nginx')} proxy_protocol;\n"
            'location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port"; } } }\n'
        )
        stack.enter_context(Nginx(folder, text, nginx_ports))
        ports.sockets |= nginx_ports.sockets
        daemon = Culvert(folder, _daemon(certificates, folder, ports, backend))
        stack.enter_context(daemon)
        yield World(daemon, client_context(trust=certificates.ca.cert), backend)


@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("peer", ["haproxy", "nginx"])
def test_a_server_tells_its_backend_the_client(world: World, peer: str, version: str) -> None:
    sock = come(world.daemon.port(f"{peer}-{version}"))
    address = shown(sock)
    assert ask(sock, world.context).split() == [address]


def test_protocol_proxy_is_version_1(world: World) -> None:
    sock = come(world.daemon.port("protocol"))
    address = shown(sock)
    assert ask(sock, world.context).split() == [address]


@pytest.mark.parametrize("version", HEADERS)
def test_an_ipv6_client(world: World, version: str) -> None:
    sock = come(world.daemon.port(f"six-{version}"), "::1", "::1")
    address = shown(sock)
    assert ask(sock, world.context).split() == [address]


@pytest.mark.parametrize("version", HEADERS)
def test_a_client_tells_the_next_hop_in_front_of_its_handshake(world: World, version: str) -> None:
    sock = come(world.daemon.port(f"client-{version}"))
    address = shown(sock)
    assert ask(sock).split() == [address]


@pytest.mark.parametrize("version", HEADERS)
def test_a_client_of_a_unix_socket_has_no_address(world: World, version: str) -> None:
    """The backend sees Culvert itself then, and takes the request."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(world.daemon.folder / version))
        assert ask(sock, world.context).startswith("127.0.0.1:")


def test_haproxy_reads_the_server_name_from_version_2(world: World) -> None:
    sock = come(world.daemon.port("haproxy-v2"))
    assert ask(sock, world.context, "www.example.com").split()[1] == "www.example.com"


def visit(world: World, service: str, context: SSL.Context, name: str = "") -> dict[int, bytes]:
    """The fields that the backend hears of a client."""
    world.backend.heard.clear()
    peer = TlsPeer(come(world.daemon.port(service)), context, server=False, name=name)
    peer.handshake()
    peer.recv()
    header = eventually(world.backend.everything, "the PROXY header")
    peer.close()
    return fields(header)


def test_version_2_tells_of_a_verified_client(world: World, certificates: Certificates, version: str) -> None:
    context = client_context(version, trust=certificates.ca.cert, leaf=certificates.client)
    context.set_alpn_protos([b"http/1.1"])
    found = visit(world, "raw", context, "www.example.com")
    assert found[0x20][:5] == b"\x07\x00\x00\x00\x00"
    assert found[0x21] == version.encode()
    assert found[0x22] == b"client"
    assert b"AES" in found[0x23] or b"CHACHA20" in found[0x23]
    assert (found[0x24], found[0x25]) == (b"ecdsa-with-SHA256", b"EC256")
    assert (found[0x01], found[0x02]) == (b"http/1.1", b"www.example.com")


def test_version_2_tells_of_a_client_without_a_certificate(world: World) -> None:
    found = visit(world, "raw", world.context)
    assert found[0x20][:5] == b"\x01\x00\x00\x00\x01"
    assert not {0x01, 0x02, 0x22} & set(found)


def test_version_2_tells_a_resumed_session_from_a_certificate_shown_now(
    world: World, certificates: Certificates
) -> None:
    context = client_context("TLSv1.2", trust=certificates.ca.cert, leaf=certificates.client)
    world.backend.heard.clear()
    first = TlsPeer(come(world.daemon.port("raw")), context, server=False)
    first.handshake()
    session = first.engine.get_session()
    assert session is not None
    eventually(world.backend.everything, "the first PROXY header")
    first.close()
    world.backend.heard.clear()
    again = TlsPeer(come(world.daemon.port("raw")), context, server=False)
    again.engine.set_session(session)
    again.handshake()
    again.recv()
    found = fields(eventually(world.backend.everything, "the PROXY header"))
    again.close()
    assert found[0x20][:5] == b"\x05\x00\x00\x00\x00"
    assert found[0x22] == b"client"


def test_a_service_that_is_chosen_by_name_has_its_own_header(world: World) -> None:
    assert visit(world, "plain", world.context, "b.example")[0x02] == b"b.example"


def test_version_2_tells_the_target_of_a_redirect_that_the_client_fails(culvert: Start, pki: Pki) -> None:
    leaf = pki.kinds["good"]
    with Sayer(WELCOME) as welcome, Sayer(ELSEWHERE) as elsewhere:
        daemon = culvert(
            f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{welcome.port}\nproxyProtocol = v2\n"
            f"redirect = 127.0.0.1:{elsewhere.port}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            f"CAfile = {pki.files['root']}\nverifyChain = yes\n"
        )
        context = client_context(leaf=pki.kinds["stranger"])
        peer = TlsPeer(come(daemon.port("s")), context, server=False)
        peer.handshake()
        assert peer.recv() == ELSEWHERE
        header = eventually(elsewhere.everything, "the PROXY header")
        peer.close()
        assert fields(header)[0x20][:5] == b"\x07\x00\x00\x00\x01"


def test_the_first_byte_of_the_client_follows_the_header(world: World) -> None:
    world.backend.heard.clear()
    peer = TlsPeer(come(world.daemon.port("raw")), world.context, server=False)
    peer.handshake(lambda tls: tls.seal(b"hello"))
    eventually(lambda: world.backend.everything().endswith(b"hello"), "the client's byte")
    peer.close()
    assert fields(world.backend.everything()[: -len(b"hello")])[0x21] == b"TLSv1.3"
