"""Peers whose certificate was revoked are refused: `openssl ocsp` is asked, in both roles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from OpenSSL import SSL

from .certificates import Authority, Leaf
from .greeters import Greeters, greeting
from .harness import Culvert
from .peers import Peers, TruncatedError, client_context, read_all
from .responders import OpensslResponder, Responder, access

WAYS = {
    "url": "OCSP = {url}",
    "aia": "OCSPaia = yes",
    "nonce": "OCSP = {url}\nOCSPnonce = yes",
    "lenient": "OCSP = {url}\nOCSPrequire = no",
    "off": "",
}
"""Options of a service that looks into revocation."""

LOGGED = {
    "good": (r"LOG5\[\S+\]: OCSP: Accepted \(good\)$",),
    "revoked": (
        r"LOG4\[\S+\]: OCSP: Rejected \(revoked\)$",
        r"LOG4\[\S+\]: Rejected by OCSP at depth=0: C=CH, O=Test, CN=revoked$",
        r"LOG3\[\S+\]: TLS handshake with (server )?\S+ failed: certificate revoked: OCSP: since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, reason: keyCompromise$",
    ),
    "unknown": (
        r"LOG4\[\S+\]: OCSP: Rejected \(inconclusive: certificate unknown: .*\)$",
        r"LOG4\[\S+\]: Rejected by OCSP at depth=0: C=CH, O=Test, CN=unknown$",
    ),
}


def accepted(way: str, kind: str) -> bool:
    return way == "off" or kind == "good" or (way == "lenient" and kind == "unknown")


@dataclass(frozen=True)
class World:
    """An authority with leaves of each kind, and a responder that knows which is which."""

    authority: Authority
    leaves: dict[str, Leaf]
    url: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ocsp")
    authority = Authority(folder, "OCSP CA")
    with Responder() as front:
        named = [access(front.url)]
        leaves = {kind: authority.leaf(kind, extensions=named) for kind in ("good", "revoked", "unknown")}
        with OpensslResponder(folder, authority, [leaves["good"]], [leaves["revoked"]]) as responder:
            front.reply = responder.forward
            yield World(authority, leaves, front.url)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Culvert]:
    good = world.leaves["good"]
    text = f"cert = {good.cert}\nkey = {good.key}\n"
    for way, options in WAYS.items():
        text += f"[{way}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        text += f"CAfile = {world.authority.cert}\nverifyChain = yes\n{options.format(url=world.url)}\n"
    with Culvert(tmp_path_factory.mktemp("server"), text) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Culvert]:
    with Greeters(world.leaves) as greeters:
        text = "client = yes\n"
        for (way, options), (kind, port) in itertools.product(WAYS.items(), greeters.ports.items()):
            text += f"[{way}-{kind}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
            text += f"CAfile = {world.authority.cert}\nverifyChain = yes\n{options.format(url=world.url)}\n"
        with Culvert(tmp_path_factory.mktemp("client"), text) as daemon:
            yield daemon


def expect_lines(daemon: Culvert, way: str, kind: str, since: int) -> None:
    if way not in ("off", "lenient"):
        for pattern in LOGGED[kind]:
            daemon.await_log(pattern, since=since)


@pytest.mark.parametrize("kind", ["good", "revoked", "unknown"])
@pytest.mark.parametrize("way", WAYS)
def test_which_clients_a_server_accepts(
    *, server: Culvert, world: World, peers: Peers, version: str, way: str, kind: str
) -> None:
    since = server.log.mark()
    context = client_context(version, leaf=world.leaves[kind])
    try:
        welcomed = read_all(peers.tls(server.port(way), context)) == b"welcome\n"
    except (SSL.Error, ConnectionError, TruncatedError):
        welcomed = False
    assert welcomed == accepted(way, kind)
    expect_lines(server, way, kind, since)


@pytest.mark.parametrize("kind", ["good", "revoked", "unknown"])
@pytest.mark.parametrize("way", WAYS)
def test_which_servers_a_client_accepts(client: Culvert, way: str, kind: str) -> None:
    since = client.log.mark()
    expected = f"I am {kind}".encode() if accepted(way, kind) else b""
    assert greeting(client.port(f"{way}-{kind}")) == expected
    expect_lines(client, way, kind, since)
