"""Sessions: resumed where they may be, by whom they may be, and not for longer than asked for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from culvert.tls.context import TlsContext
from culvert.tls.engine import Engine, Scratch
from culvert.tls.sessions import SessionCache

from .certificates import publish
from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])
TARGET = ("192.0.2.1", 443)


def connect(
    client: TlsContext, server: TlsContext, cache: SessionCache, now: float = 0.0, target: object = TARGET
) -> Pair:
    """One connection that offers what the cache has, carries a byte each way, leaves its session there and
    closes: OpenSSL takes no session up again whose connection broke."""
    pair = Pair(client, server)
    cache.offer(target, pair.client.engine, now)
    pair.shake_hands()
    if pair.accepted:
        assert pair.carry(pair.server, pair.client, b"a") == b"a"
        assert pair.carry(pair.client, pair.server, b"b") == b"b"
        cache.remember(target, pair.client.engine, now)
        pair.close()
    return pair


def resumed(pair: Pair) -> bool:
    assert (pair.client.failure, pair.server.failure) == (None, None)
    assert pair.client.engine.resumed == pair.server.engine.resumed
    return pair.client.engine.resumed


@VERSIONS
def test_a_second_connection_resumes(authority: Authority, version: str) -> None:
    client, server = context(version, client=True), context(version, authority.server_cert)
    cache = SessionCache(10, 300)
    assert [resumed(connect(client, server, cache)) for _ in range(4)] == [False, True, True, True]


@VERSIONS
def test_another_target_does_not(authority: Authority, version: str) -> None:
    client, server = context(version, client=True), context(version, authority.server_cert)
    cache = SessionCache(10, 300)
    connect(client, server, cache)
    assert not resumed(connect(client, server, cache, target=("192.0.2.2", 443)))


@VERSIONS
def test_a_session_ages(authority: Authority, version: str) -> None:
    client, server = context(version, client=True), context(version, authority.server_cert)
    cache = SessionCache(10, 300)
    connect(client, server, cache, now=1000)
    pair = Pair(client, server)
    cache.offer(TARGET, pair.client.engine, 1300.5)
    assert not resumed(pair.shake_hands())


def test_the_oldest_makes_room(authority: Authority) -> None:
    client, server = context(TLS13, client=True), context(TLS13, authority.server_cert)
    cache = SessionCache(2, 300)
    for target in ("a", "b", "c"):
        connect(client, server, cache, target=target)
    assert [resumed(connect(client, server, cache, target=target)) for target in ("b", "c")] == [True, True]
    assert not resumed(connect(client, server, cache, target="a"))


def test_a_cache_of_no_size_keeps_nothing(authority: Authority) -> None:
    client, server = context(TLS13, client=True), context(TLS13, authority.server_cert)
    cache = SessionCache(0, 300)
    assert [resumed(connect(client, server, cache)) for _ in range(3)] == [False, False, False]


@VERSIONS
def test_a_server_without_resumption_refuses_it(authority: Authority, version: str) -> None:
    client = context(version, client=True)
    server = context(version, authority.server_cert, "sessionResume = no")
    cache = SessionCache(10, 300)
    assert [resumed(connect(client, server, cache)) for _ in range(3)] == [False, False, False]


@VERSIONS
def test_a_session_of_one_service_is_none_of_another(authority: Authority, version: str) -> None:
    """A service that verifies must not take a session that one made which does not."""
    client = context(version, client=True)
    lax = context(version, authority.server_cert)
    strict = context(version, authority.server_cert, authority.trust, "verify = 2")
    cache = SessionCache(10, 300)
    assert not resumed(connect(client, lax, cache))
    assert not connect(client, strict, cache).accepted


@VERSIONS
def test_a_certificate_is_known_after_resumption(authority: Authority, version: str) -> None:
    client = context(version, authority.client_cert, client=True)
    server = context(version, authority.server_cert, authority.trust, "verify = 2")
    cache = SessionCache(10, 300)
    first = connect(client, server, cache)
    second = connect(client, server, cache)
    assert (resumed(first), resumed(second)) == (False, True)
    assert second.server.engine.peer_certificate() == first.server.engine.peer_certificate() is not None
    assert second.client.engine.peer_certificate() == first.client.engine.peer_certificate() is not None


def test_a_session_of_another_version_does_no_harm(authority: Authority) -> None:
    server = context("sslVersionMin = TLSv1.2", "sslVersionMax = TLSv1.3", authority.server_cert)
    cache = SessionCache(10, 300)
    connect(context(TLS12, client=True), server, cache)
    assert not resumed(connect(context(TLS13, client=True), server, cache))


def test_a_session_that_the_server_forgot_does_no_harm(authority: Authority) -> None:
    client = context(TLS13, client=True)
    cache = SessionCache(10, 300)
    connect(client, context(TLS13, authority.server_cert), cache)
    assert not resumed(connect(client, context(TLS13, authority.server_cert), cache))


def test_an_engine_without_a_session_leaves_the_cache_as_it_is(authority: Authority) -> None:
    client, server = context(TLS13, client=True), context(TLS13, authority.server_cert)
    cache = SessionCache(10, 300)
    connect(client, server, cache)
    fresh: Engine = client.engine(Scratch())
    cache.remember(TARGET, fresh, 0.0)
    assert resumed(connect(client, server, cache))


@VERSIONS
def test_a_session_lets_nobody_pass_whom_the_rules_do_not(authority: Authority, version: str) -> None:
    """A session is judged by the rules of the connection that takes it up, not of the one that made it."""
    verified = (version, authority.trust, "verifyChain = yes")
    server, cache = context(version, authority.server_cert), SessionCache(10, 300)
    before = connect(context(*verified, "allowDNS = server.test", client=True), server, cache)
    assert not resumed(before)
    for rule, accepted in (("allowDNS = server.test", True), ("allowDNS = other.example", False)):
        pair = Pair(context(*verified, rule, client=True), server)
        cache.offer(TARGET, pair.client.engine, 0.0)
        pair.shake_hands()
        assert pair.client.engine.resumed
        assert (pair.client.failure is None) is accepted
        assert pair.client.findings[-1].text.startswith(
            "Identity accepted by allowDNS = server.test" if accepted else "CERT: No allow rule matches"
        )
        if accepted:
            pair.close()


@VERSIONS
@pytest.mark.parametrize("role", ["server", "client"])
def test_a_session_does_not_outlive_the_list_it_was_made_under(
    authority: Authority, tmp_path: Path, version: str, role: str
) -> None:
    """A revoked peer could stay for ever: in TLS 1.3 each resumption brings a new session."""
    verified = (authority.trust, "verifyChain = yes", f"CRLpath = {tmp_path}")
    client = context(version, authority.client_cert, *(verified * (role == "client")), client=True)
    server = context(version, authority.server_cert, *(verified * (role == "server")))
    judge = server if role == "server" else client

    def visit() -> Pair:
        assert judge.refresh(time.monotonic()) == []
        return connect(client, server, client.sessions)

    publish(tmp_path, authority.root)
    assert [resumed(visit()) for _ in range(3)] == [False, True, True]
    publish(tmp_path, authority.root, authority.client if role == "server" else authority.server)
    refused = visit()
    assert (refused.server if role == "server" else refused.client).failure is not None
    publish(tmp_path, authority.root)
    assert [resumed(visit()) for _ in range(2)] == [False, True]


@VERSIONS
@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("verifies", [True, False])
def test_a_peer_is_verified_anew_however_often_it_resumes(
    authority: Authority, *, version: str, role: str, verifies: bool
) -> None:
    """Its certificate may have expired since; who is not verified cannot lose by it."""
    verified = (authority.trust, "verifyChain = yes") if verifies else ()
    client = context(version, authority.client_cert, *(verified * (role == "client")), client=True)
    server = context(version, authority.server_cert, *(verified * (role == "server")))
    cache, start = client.sessions, time.monotonic()

    def visit(seconds: float) -> bool:
        for end in (client, server):
            assert end.refresh(start + seconds) == []
        return resumed(connect(client, server, client.sessions))

    assert [visit(seconds) for seconds in (0, 150, 299)] == [False, True, True]
    assert [visit(seconds) for seconds in (301, 450)] == [not verifies, True]
    assert (client.sessions is cache) is not (verifies and role == "client")
