"""A server fetches and renews its own staple; a client believes a good one and refuses what it reveals."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from .certificates import Authority, Leaf
from .harness import Culvert, eventually, require
from .peers import Peers, PlainPeer, client_context, dial, read_all
from .responders import REVOKED, Responder, access, answer, ok

Start = Callable[..., Culvert]

FETCHED = r"LOG6\[s\]: OCSP stapling: http://\S+ answered, valid until "


@dataclass(frozen=True)
class World:
    """A server's leaf that names a responder."""

    authority: Authority
    leaf: Leaf
    responder: Responder

    def server(self, more: str = "") -> str:
        """A service that greets; its issuer stands behind its certificate."""
        return (
            f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
            f"cert = {self.leaf.bundle}\n{more}\n"
        )


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ocsp")
    authority = Authority(folder, "Issuing CA", Authority(folder, "Root CA"))
    with Responder() as responder:
        leaf = authority.leaf("server", extensions=[access(responder.url)])
        responder.reply = lambda _: ok(answer(leaf, authority))
        yield World(authority, leaf, responder)


def client(world: World, port: int, more: str = "") -> str:
    return (
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
        f"CAfile = {world.leaf.folder / 'Root-CA.crt'}\nverifyChain = yes\n{more}\n"
    )


def greeted(daemon: Culvert) -> bool:
    """Whether the greeting comes through a client service."""
    with dial(daemon.port("c")) as sock:
        try:
            return read_all(PlainPeer(sock)) == b"welcome\n"
        except ConnectionResetError:
            return False


def status(port: int) -> str:
    """What `openssl s_client` says of a server's staple."""
    done = subprocess.run(
        [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-status"],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout


def test_a_server_staples_and_openssl_believes_it(culvert: Start, world: World) -> None:
    server = culvert(world.server())
    server.await_log(FETCHED)
    told = status(server.port("s"))
    assert "OCSP Response Status: successful" in told
    assert "Cert Status: good" in told


@pytest.mark.parametrize("options", ["", "OCSPaia = yes"])
def test_a_client_believes_a_staple_and_asks_nobody(culvert: Start, world: World, options: str) -> None:
    server = culvert(world.server())
    server.await_log(FETCHED)
    through = culvert(client(world, server.port("s"), options))
    for _ in range(3):
        assert greeted(through)
    eventually(lambda: len(through.log.find(r"LOG5\[\S+\]: OCSP: Accepted \(good\)")) == 3, "three checks")
    assert through.log.find("previous session reused")
    assert len(world.responder.requests) == 1, "the server's own question"


@pytest.mark.parametrize("options", ["", "OCSPaia = yes", "OCSPrequire = no"])
def test_a_client_refuses_a_server_whose_staple_says_revoked(
    culvert: Start, world: World, options: str
) -> None:
    world.responder.reply = lambda _: ok(answer(world.leaf, world.authority, REVOKED))
    server = culvert(world.server())
    server.await_log(r"LOG3\[s\]: OCSP stapling: the certificate of service \[s\] was revoked")
    through = culvert(client(world, server.port("s"), options))
    assert not greeted(through)
    through.await_log(r"LOG4\[\S+\]: Rejected by OCSP at depth=0: C=CH, O=Test, CN=server$")


def test_a_client_without_a_staple_asks_where_it_was_told_to(culvert: Start, world: World) -> None:
    good, world.responder.reply = world.responder.reply, lambda _: b""
    server = culvert(world.server())
    server.await_log(r"LOG4\[s\]: OCSP stapling: no answer: http://\S+: .*; the next attempt is in 10 s$")
    world.responder.reply = good
    asking = culvert(client(world, server.port("s"), "OCSPaia = yes"))
    assert greeted(asking)
    asking.await_log(r"OCSP: Accepted \(good\)")
    assert len(world.responder.requests) == 2
    trusting = culvert(client(world, server.port("s")))
    assert greeted(trusting)
    assert not trusting.log.find("OCSP")


def test_a_staple_is_renewed_and_given_out_no_longer_than_it_holds(culvert: Start, world: World) -> None:
    life = datetime.timedelta(seconds=3)
    world.responder.reply = lambda _: ok(answer(world.leaf, world.authority, ends=life))
    server = culvert(world.server())
    server.await_log(FETCHED)
    eventually(lambda: len(world.responder.requests) >= 2, "the renewal")
    world.responder.hold()
    eventually(lambda: "OCSP response: no response sent" in status(server.port("s")), "the end of the staple")
    assert server.process.poll() is None


def test_a_server_serves_while_its_responder_stalls(culvert: Start, world: World, peers: Peers) -> None:
    world.responder.hold()
    server = culvert(world.server())
    eventually(lambda: world.responder.requests, "the question")
    assert read_all(peers.tls(server.port("s"), client_context())) == b"welcome\n"


def test_a_reload_and_a_stop_end_the_renewal(culvert: Start, world: World) -> None:
    server = culvert(world.server())
    server.await_log(FETCHED)
    mark = server.reload(world.server())
    server.await_log(FETCHED, since=mark)
    assert len(world.responder.requests) == 2


def test_one_that_cannot_be_asked_about_says_so_and_serves(
    culvert: Start, world: World, peers: Peers
) -> None:
    server = culvert(
        world.server().replace(str(world.leaf.bundle), f"{world.leaf.cert}\nkey = {world.leaf.key}")
    )
    server.await_log(r"LOG5\[s\]: OCSP stapling: the issuer of the certificate of \[s\] stands neither")
    assert read_all(peers.tls(server.port("s"), client_context())) == b"welcome\n"
    assert not world.responder.requests
