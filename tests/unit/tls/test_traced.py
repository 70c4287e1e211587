"""A traced engine: what it tells, that it carries the same bytes, and what it leaves behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from culvert.tls._openssl import lib
from culvert.tls.engine import CHUNK, Engine, Scratch, Status
from culvert.tls.traced import TracedEngine
from culvert.trace import Direction, Wants

from ..trace.sessions import Watched, messages, of
from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context, give, output

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])
ENDS = pytest.mark.parametrize("end", ["client", "server"])
DATA, HANDSHAKE, ALERT = 23, 22, 21

HANDSHAKES = {
    TLS12: [
        "ClientHello",
        "ServerHello",
        "Certificate",
        "ServerKeyExchange",
        "ServerHelloDone",
        "ClientKeyExchange",
        "Finished",
        "NewSessionTicket",
        "Finished",
    ],
    TLS13: [
        "ClientHello",
        "ServerHello",
        "EncryptedExtensions",
        "Certificate",
        "CertificateVerify",
        "Finished",
        "Finished",
        "NewSessionTicket",
        "NewSessionTicket",
    ],
}


def watched(authority: Authority, version: str, wants: Wants | None = None) -> Watched:
    client, server = context(version, client=True), context(version, authority.server_cert)
    session = Watched(client, server) if wants is None else Watched(client, server, wants)
    session.pair.shake_hands()
    return session


@VERSIONS
@ENDS
def test_all_handshake_messages_are_told(authority: Authority, version: str, end: str) -> None:
    found = [message.name for message in messages(watched(authority, version).records(end))]
    assert sorted(found) == sorted(HANDSHAKES[version])


@VERSIONS
def test_both_ends_tell_the_same_records(authority: Authority, version: str) -> None:
    session = watched(authority, version)
    session.pair.carry(session.pair.client, session.pair.server, b"hello")
    session.pair.close()
    for direction in Direction:
        client, server = (
            [(one.type, one.inner, one.length, one.messages, one.content) for one in of(records, direction)]
            for records in (session.records("client"), session.records("server"))
        )
        assert client == server


@VERSIONS
@pytest.mark.parametrize("size", [1, 16384, 16385, 3 * 16384, CHUNK])
def test_the_plain_text_is_told_record_by_record(authority: Authority, version: str, size: int) -> None:
    session = watched(authority, version)
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    assert session.pair.carry(session.pair.client, session.pair.server, data) == data
    shares = [data[at : at + 16384] for at in range(0, size, 16384)]
    for end in ("client", "server"):
        told = [one for one in session.records(end) if (one.inner or one.type) == DATA]
        assert [one.content for one in told] == shares
        assert [one.size for one in told] == [len(share) for share in shares]


@VERSIONS
def test_what_goes_by_the_short_way_of_a_packet_is_told_too(authority: Authority, version: str) -> None:
    session = watched(authority, version)
    client, server = session.pair.client.engine, session.pair.server.engine
    client.scratch.received[40:46] = b"packet"
    count = client.encrypt_at(40, 6)
    read = server.first(give(server, bytes(client.scratch.transformed[:count])))
    assert bytes(server.scratch.transformed[:read]) == b"packet"
    assert server.drain() == 0
    for end in ("client", "server"):
        told = [one.content for one in session.records(end) if (one.inner or one.type) == DATA]
        assert told == [b"packet"]
    assert session.wire("client", Direction.TO_SERVER) == session.wire("server", Direction.TO_SERVER)


@VERSIONS
def test_the_wire_is_told_in_both_directions(authority: Authority, version: str) -> None:
    session = watched(authority, version)
    session.pair.carry(session.pair.server, session.pair.client, b"x" * 50000)
    for direction in Direction:
        crossed = session.wire("client", direction)
        assert crossed == session.wire("server", direction)
        lengths = sum(5 + record.length for record in of(session.records("client"), direction))
        assert len(crossed) == lengths


def test_without_data_no_plain_text_is_kept(authority: Authority) -> None:
    session = watched(authority, TLS13, Wants())
    session.pair.carry(session.pair.client, session.pair.server, b"secret")
    (told,) = [one for one in session.records("server") if one.inner == DATA]
    assert (told.content, told.size) == (b"", 6)
    assert session.secrets("server") == []


@VERSIONS
def test_secrets_stand_before_the_bytes_that_they_open(authority: Authority, version: str) -> None:
    session = watched(authority, version)
    kinds = [type(event).__name__ for event in session.seen("client")]
    last_flight = len(kinds) - 1 - kinds[::-1].index("Wire")
    assert "Secret" in kinds[:last_flight]
    assert sorted(session.secrets("client")) == sorted(session.secrets("server"))


@VERSIONS
def test_an_alert_is_told(authority: Authority, version: str) -> None:
    client = context(version, "verifyChain = yes", authority.trust, "checkHost = other.test", client=True)
    session = Watched(client, context(version, authority.server_cert))
    session.pair.shake_hands()
    assert session.pair.client.failure is not None
    for end in ("client", "server"):
        alerts = [one for one in session.records(end) if (one.inner or one.type) == ALERT]
        assert [one.content[0] for one in alerts] == [2]


@VERSIONS
def test_a_record_that_cannot_be_decrypted_is_told_as_such(authority: Authority, version: str) -> None:
    session = watched(authority, version)
    sealed = bytearray(session.pair.client.encrypt(b"hello"))
    sealed[-1] ^= 1
    engine = session.pair.server.engine
    engine.decrypt(give(engine, bytes(sealed)))
    assert engine.status is Status.FAILED
    last = [one for one in session.records("server") if one.direction is Direction.TO_SERVER][-1]
    assert last.opaque


def test_a_read_in_parts_is_of_one_record(authority: Authority) -> None:
    session = watched(authority, TLS13)
    sealed = session.pair.client.encrypt(b"hello")
    engine = session.pair.server.engine
    engine.feed(give(engine, sealed))
    assert [engine.read(2), engine.read(2), engine.read(2), engine.read(2)] == [b"he", b"ll", b"o", b""]
    (told,) = [one for one in session.records("server") if one.inner == DATA]
    assert told.content == b"hello"


def test_a_renegotiation_and_what_waited_for_it_are_told(authority: Authority) -> None:
    session = watched(authority, TLS12)
    client, server = session.pair.client, session.pair.server
    before = len(session.records("client"))
    assert lib.SSL_renegotiate(client.engine.pointer) == 1
    assert not client.engine.handshake()
    to_server = output(client.engine) + client.encrypt(b"waiting")
    received = b""
    for _ in range(20):
        received += server.decrypt(to_server)
        assert client.decrypt(output(server.engine)) == b""
        client.engine.resume()
        to_server = output(client.engine)
        if client.engine.blocked is None:
            break
    assert received + server.decrypt(to_server) == b"waiting"
    told = session.records("client")[before:]
    assert [message.name for message in messages(told)][:2] == ["ClientHello", "ServerHello"]
    assert [one.content for one in told if one.type == DATA] == [b"waiting"]


def test_connections_beside_it_are_not_told_of(authority: Authority) -> None:
    client, server = context(TLS13, client=True), context(TLS13, authority.server_cert)
    session = Watched(client, server)
    session.pair.shake_hands()
    before = len(session.seen("server")), len(session.seen("client"))
    other = Pair(client, server).shake_hands()
    assert other.accepted
    assert (len(session.seen("server")), len(session.seen("client"))) == before
    assert type(other.server.engine) is Engine


def test_the_key_log_of_the_service_goes_on(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    client = context(TLS13, client=True)
    server = context(TLS13, authority.server_cert, f"keylog = {path}")
    session = Watched(client, server)
    session.pair.shake_hands()
    assert path.read_text().splitlines() == session.secrets("server")
    del session
    gc.collect()
    assert Pair(client, server).shake_hands().accepted
    assert len(path.read_text().splitlines()) == 10


def test_the_context_may_go_before_its_engine(authority: Authority) -> None:
    client, server = context(TLS13, client=True), context(TLS13, authority.server_cert)
    session = Watched(client, server)
    session.pair.client.context = session.pair.server.context = None  # type: ignore[assignment]
    del client, server
    gc.collect()
    flight = session.pair.client.step(b"")
    answer = session.pair.server.engine
    answer.feed(give(answer, flight))
    assert not answer.handshake()
    assert session.secrets("server")


def test_an_engine_without_a_tap_is_a_plain_one(authority: Authority) -> None:
    assert type(context(TLS13, authority.server_cert).engine(Scratch())) is Engine
    assert issubclass(TracedEngine, Engine)
