"""Answers are kept while they hold, shared by those who wait, and looked at again for resumed sessions."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from OpenSSL import SSL

from .certificates import Authority, Leaf
from .greeters import Greeters, greeting
from .harness import Culvert, eventually
from .peers import Peers, TlsPeer, TruncatedError, background, client_context, dial, read_all
from .responders import GOOD, REVOKED, Responder, answer, ok

Start = Callable[..., Culvert]

HOUR = datetime.timedelta(hours=1)
NOTHING = datetime.timedelta()
"""For how long an answer holds that is believed now, and asked for again the next time."""


@dataclass(frozen=True)
class World:
    """A root that signed nothing but an intermediate, which signed the peers; and a responder for those."""

    root: Authority
    authority: Authority
    server: Leaf
    client: Leaf
    responder: Responder

    def says(self, leaf: Leaf, *, revoked: bool = False, kept: bool = True) -> None:
        """What the responder answers from now on."""
        status, ends = REVOKED if revoked else GOOD, HOUR if kept else NOTHING
        self.responder.reply = lambda _: ok(answer(leaf, self.authority, status, ends=ends))


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("ocsp")
    root = Authority(folder, "Root CA")
    authority = Authority(folder, "Issuing CA", root)
    with Responder() as responder:
        yield World(root, authority, authority.leaf("server"), authority.leaf("client"), responder)


def server(world: World) -> str:
    """A server service that greets clients of the root."""
    own = world.root.leaf("own")
    return (
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\ncert = {own.cert}\n"
        f"key = {own.key}\nCAfile = {world.root.cert}\nverifyChain = yes\nOCSP = {world.responder.url}\n"
    )


class Visitor:
    """A client with a certificate that comes back with the session of its last visit."""

    def __init__(self, daemon: Culvert, world: World, version: str) -> None:
        self._port = daemon.port("s")
        self._context = client_context(version, leaf=world.client)
        self._session: SSL.Session | None = None

    def visit(self) -> bool:
        """One connection; whether it is greeted."""
        with dial(self._port) as sock:
            peer = TlsPeer(sock, self._context, server=False)
            if self._session is not None:
                peer.engine.set_session(self._session)
            try:
                peer.handshake()
                greeted = read_all(peer) == b"welcome\n"
            except (SSL.Error, ConnectionError, TruncatedError):
                return False
            self._session = peer.engine.get_session()
            peer.end()
            return greeted


def test_one_question_for_all_who_wait_and_none_while_its_answer_holds(
    culvert: Start, world: World, version: str
) -> None:
    daemon = culvert(server(world))
    daemon.await_log("OCSP stapling: ")  # the question about its own certificate is over
    world.says(world.client)
    world.responder.hold()
    asked = len(world.responder.requests)
    waiting = [background(Visitor(daemon, world, version).visit) for _ in range(5)]
    eventually(lambda: len(world.responder.requests) > asked, "the question")
    eventually(lambda: len(daemon.log.find("Certificate accepted")) == 5, "five clients")
    world.responder.release()
    assert all(visit.result(timeout=10) for visit in waiting)
    assert Visitor(daemon, world, version).visit()
    assert len(world.responder.requests) == asked + 1
    accepted = r"LOG5\[\S+\]: OCSP: Accepted \(good\)"
    eventually(lambda: len(daemon.log.find(accepted)) == 6, "a line for each of them")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_client_is_looked_into_again(
    *, culvert: Start, world: World, version: str, workers: int
) -> None:
    """The session brings no chain, and the issuer stands in no file: it is remembered."""
    world.says(world.client, kept=False)
    daemon = culvert(server(world), workers=workers)
    visitor = Visitor(daemon, world, version)
    resumed = "TLS accepted: previous session reused"
    if workers == 1:
        assert all(visitor.visit() for _ in range(12))
        eventually(lambda: len(daemon.log.find(resumed)) == 11, "resumed sessions")
    else:  # a session is resumed by the worker that made it
        eventually(lambda: visitor.visit() and daemon.log.find(resumed), "a resumed session")
    world.says(world.client, revoked=True)
    for _ in range(4):
        assert not visitor.visit()


@pytest.mark.parametrize("revoked", [False, True])
def test_a_client_looks_into_a_server_again(
    *, culvert: Start, world: World, peers: Peers, version: str, revoked: bool
) -> None:
    world.says(world.server, kept=False)
    with Greeters({"server": world.server}, version) as greeters:
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
            f"CAfile = {world.root.cert}\nverifyChain = yes\nOCSP = {world.responder.url}\n"
        )
        assert greeting(daemon.port("c")) == b"I am server"
        assert greeting(daemon.port("c")) == b"I am server"
        world.says(world.server, revoked=revoked, kept=False)
        mark = daemon.log.mark()
        assert greeting(daemon.port("c")) == (b"" if revoked else b"I am server")
        if revoked:
            daemon.await_log("Rejected by OCSP", since=mark)
            world.says(world.server, kept=False)
            assert greeting(daemon.port("c")) == b"I am server"
            # The refused session is not offered again.
            daemon.await_log("TLS connected: new session negotiated", since=mark)
        else:
            daemon.await_log("TLS connected: previous session reused", since=mark)
