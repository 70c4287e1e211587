"""Who the peer is: verdicts kept by connection, held to after the handshake, counted by what was wrong."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import pytest
from OpenSSL import SSL

from culvert.tls.authentication import NO_CERTIFICATE
from culvert.tls.context import TlsContext
from culvert.tls.engine import Scratch
from culvert.tls.failure import TlsError
from culvert.tls.sessions import SessionCache
from culvert.tls.verify import Verification

from ..identities import Identity, issue, write
from .certificates import certify, common_name, write_identity, write_trust
from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context
from .test_sessions import TARGET, connect

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])
CHAIN = "verifyChain = yes"
REDIRECT = "redirect = 127.0.0.1:1"
LENIENT = pytest.mark.parametrize("more", [(), (REDIRECT,)], ids=["refused", "redirected"])


def found(context: TlsContext, pair: Pair) -> Verification:
    verification = context.verification(pair.server.engine)
    assert verification is not None
    return verification


def meet(server: TlsContext, version: str, shown: str = "") -> Pair:
    return Pair(context(version, *([shown] if shown else []), client=True), server).shake_hands()


def test_nothing_is_found_where_nothing_is_asked(authority: Authority) -> None:
    server = context(authority.server_cert)
    pair = meet(server, TLS13, authority.client_cert)
    assert pair.accepted
    assert server.verification(pair.server.engine) is None


@VERSIONS
@LENIENT
class TestCause:
    """Each refusal is counted as what it is, whether it ends the handshake or sends the client elsewhere."""

    def cause(self, authority: Authority, version: str, *options: str, shown: str = "") -> str | None:
        server = context(version, authority.server_cert, authority.trust, *options)
        pair = meet(server, version, shown)
        assert not pair.accepted
        assert pair.server.failure is not None
        return found(server, pair).cause

    def own(self, tmp_path: Path, identity: Identity) -> str:
        return f"cert = {write_identity(tmp_path / 'shown.pem', identity)}"

    def test_no_certificate(self, authority: Authority, version: str, more: tuple[str, ...]) -> None:
        assert self.cause(authority, version, CHAIN, *more) == "no certificate"

    def test_a_chain_of_another(
        self, *, authority: Authority, tmp_path: Path, version: str, more: tuple[str, ...]
    ) -> None:
        stranger = self.own(tmp_path, certify(common_name("stranger"), issuer=issue("elsewhere")))
        cause = self.cause(authority, version, CHAIN, *more, shown=stranger)
        assert cause == "unable to get local issuer certificate"

    def test_an_expired_one(
        self, *, authority: Authority, tmp_path: Path, version: str, more: tuple[str, ...]
    ) -> None:
        old = certify(common_name("old"), issuer=authority.root, starts_in=-20, ends_in=-5)
        cause = self.cause(authority, version, CHAIN, *more, shown=self.own(tmp_path, old))
        assert cause == "certificate has expired"

    def test_an_expired_authority(
        self, *, authority: Authority, tmp_path: Path, version: str, more: tuple[str, ...]
    ) -> None:
        old = issue("old", starts_in=-20, ends_in=-5)
        trust = f"CAfile = {write_trust(tmp_path / 'old.pem', old)}"
        shown = self.own(tmp_path, certify(common_name("leaf"), issuer=old))
        cause = self.cause(authority, version, trust, CHAIN, *more, shown=shown)
        assert cause == "certificate has expired"

    def test_one_that_is_not_pinned(self, authority: Authority, version: str, more: tuple[str, ...]) -> None:
        cause = self.cause(authority, version, "verifyPeer = yes", *more, shown=authority.client_cert)
        assert cause == "certificate not pinned"

    def test_one_of_another_name(self, authority: Authority, version: str, more: tuple[str, ...]) -> None:
        options = (CHAIN, "checkHost = other.test", *more)
        assert self.cause(authority, version, *options, shown=authority.client_cert) == "subject mismatch"

    def test_one_that_no_rule_knows(self, authority: Authority, version: str, more: tuple[str, ...]) -> None:
        options = (CHAIN, "allowCN = other", *more)
        cause = self.cause(authority, version, *options, shown=authority.client_cert)
        assert cause == "no allow rule matches"


@VERSIONS
def test_a_key_that_no_rule_knows_is_counted(tmp_path: Path, version: str) -> None:
    secrets = f"PSKsecrets = {write(tmp_path / 'secrets', b'alice:' + b'ab' * 16)}"
    server = context(version, secrets, "allowPSK = bob")
    pair = meet(server, version, secrets)
    assert pair.server.failure is not None
    assert found(server, pair).cause == "no allow rule matches"
    fits = context(version, secrets, "allowPSK = alice")
    assert found(fits, meet(fits, version, secrets)).cause is None


@VERSIONS
def test_one_that_passes_has_no_cause(authority: Authority, version: str) -> None:
    server = context(version, authority.server_cert, authority.trust, CHAIN)
    pair = meet(server, version, authority.client_cert)
    assert pair.accepted
    assert found(server, pair).cause is None
    assert found(server, pair).passed


@VERSIONS
def test_who_needs_none_and_shows_none_passes_without_a_cause(authority: Authority, version: str) -> None:
    server = context(version, authority.server_cert, authority.trust, CHAIN, "requireCert = no")
    pair = meet(server, version)
    assert pair.accepted
    assert found(server, pair) == Verification()


def test_a_failure_of_another_kind_is_none_of_the_certificate(authority: Authority) -> None:
    server = context(TLS12, authority.server_cert, authority.trust, CHAIN)
    pair = Pair(context(TLS13, authority.client_cert, client=True), server).shake_hands()
    assert pair.server.failure is not None
    assert NO_CERTIFICATE not in str(pair.server.failure)
    assert found(server, pair).cause is None


@VERSIONS
def test_each_connection_has_a_verdict_of_its_own(authority: Authority, version: str) -> None:
    """Handshakes that run side by side, of clients with and without a certificate."""
    server = context(version, authority.server_cert, authority.trust, CHAIN, "requireCert = no")
    shown = [authority.client_cert, "", authority.client_cert, ""]
    pairs = [Pair(context(version, *([cert] if cert else []), client=True), server) for cert in shown]
    for pair in pairs:
        pair.shake_hands()
    assert [found(server, pair).passed for pair in pairs] == [True, False, True, False]


def test_a_new_connection_knows_nothing_of_an_old_one(authority: Authority) -> None:
    """OpenSSL gives a new SSL the address of one that is gone."""
    server = context(authority.server_cert, authority.trust, CHAIN)
    scratch = Scratch()
    for _ in range(5):
        pair = meet(server, TLS13, authority.client_cert)
        assert found(server, pair).passed
        del pair
        gc.collect()
        engine = server.engine(scratch)
        assert server.verification(engine) == Verification()
        del engine


def insist(client: TlsContext, server: TlsContext) -> Pair:
    """A connection that offers the session of the last one, whatever was said of it."""
    pair = Pair(client, server)
    client.sessions.offer(TARGET, pair.client.engine, 0)
    pair.shake_hands()
    if pair.server.finished and pair.client.finished:
        pair.carry(pair.server, pair.client, b"a")
        client.sessions.remember(TARGET, pair.client.engine, 0)
        pair.close()
    return pair


@VERSIONS
@LENIENT
def test_a_resumed_session_is_held_to_what_was_found_of_it(
    authority: Authority, tmp_path: Path, version: str, more: tuple[str, ...]
) -> None:
    """A client that was not to pass must not by coming again; a good one does, and both are counted."""
    server = context(version, authority.server_cert, authority.trust, CHAIN, *more)
    stranger = write_identity(tmp_path / "stranger.pem", certify(common_name("x"), issuer=issue("elsewhere")))
    for shown, cause in (
        (authority.client_cert, None),
        (f"cert = {stranger}", "unable to get local issuer certificate"),
        ("", "no certificate"),
    ):
        client = context(version, *([shown] if shown else []), client=True)
        first, second = insist(client, server), insist(client, server)
        assert [found(server, pair).cause for pair in (first, second)] == [cause, cause]
        assert [pair.server.failure is None for pair in (first, second)] == [cause is None] * 2
        if more:
            assert second.server.engine.resumed


@VERSIONS
def test_rules_are_asked_again_of_a_resumed_session(authority: Authority, version: str) -> None:
    options = (version, authority.server_cert, authority.trust, CHAIN, "allowCN = client")
    client, server = context(version, authority.client_cert, client=True), context(*options)
    cache = SessionCache(10, 300)
    texts = []
    for _ in range(2):
        pair = connect(client, server, cache)
        assert (pair.client.failure, pair.server.failure) == (None, None)
        texts.append([finding.text for finding in found(server, pair).findings])
    assert pair.server.engine.resumed
    line = "Identity accepted by allowCN = client: CN=client"
    assert [line in text for text in texts] == [True, True]


def test_a_client_is_not_satisfied_by_a_server_that_shows_nothing(authority: Authority) -> None:
    """A suite without certificates; what is required did not come, and the handshake succeeds."""
    anonymous = SSL.Context(SSL.TLS_SERVER_METHOD)
    anonymous.set_max_proto_version(SSL.TLS1_2_VERSION)
    anonymous.set_cipher_list(b"AECDH-AES256-SHA:@SECLEVEL=0")
    server = SSL.Connection(anonymous, None)
    server.set_accept_state()
    suite = ("ciphers = AECDH-AES256-SHA", "securityLevel = 0", TLS12)
    client = context(*suite, authority.trust, CHAIN, client=True)
    engine = client.engine(Scratch())
    finished = False
    for _ in range(10):
        if finished:
            break
        finished = engine.handshake()
        flight = bytes(engine.scratch.transformed[: engine.output()])
        if flight:
            server.bio_write(flight)
        with contextlib.suppress(SSL.WantReadError):
            server.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            engine.feed_bytes(server.bio_read(1 << 16))
    assert finished
    with pytest.raises(TlsError, match=NO_CERTIFICATE):
        client.prove(engine)
    verification = client.verification(engine)
    assert verification is not None
    assert verification.cause == "no certificate"
