"""The engine: bytes in, bytes out, without a network."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from culvert.tls._openssl import lib
from culvert.tls.engine import CHUNK, RECORD, Engine, Scratch, Status
from culvert.tls.failure import TlsError, take_errors

from .conftest import Authority
from .ends import TLS12, TLS13, End, Pair, chunks, context, give, output

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])
SIZES = pytest.mark.parametrize("size", [1, 2, RECORD - 1, RECORD, RECORD + 1, CHUNK - 1, CHUNK])


def pair(authority: Authority, version: str) -> Pair:
    return Pair(
        context(version, authority.trust, "verifyChain = yes", client=True),
        context(version, authority.server_cert),
    )


def open_pair(authority: Authority, version: str) -> Pair:
    opened = pair(authority, version).shake_hands()
    assert opened.accepted, (opened.client.failure, opened.server.failure)
    return opened


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@VERSIONS
@pytest.mark.parametrize("size", [1, 7, 1000, CHUNK])
def test_a_handshake_succeeds_whatever_the_flights_are_cut_into(
    authority: Authority, version: str, size: int
) -> None:
    opened = pair(authority, version).shake_hands(size)
    assert opened.accepted
    engines = (opened.client.engine, opened.server.engine)
    assert {engine.version for engine in engines} == {version.rpartition(" ")[2]}
    assert len({engine.cipher for engine in engines}) == 1
    assert not any(engine.resumed for engine in engines)
    assert {engine.group for engine in engines} != {None}


def test_the_default_group_is_a_hybrid_one(authority: Authority) -> None:
    assert open_pair(authority, TLS13).client.engine.group == "X25519MLKEM768"


def test_the_peers_certificate_is_given_in_der(authority: Authority) -> None:
    opened = open_pair(authority, TLS13)
    assert opened.client.engine.peer_certificate() == authority.server.certificate.public_bytes(Encoding.DER)
    assert opened.server.engine.peer_certificate() is None


@VERSIONS
@SIZES
def test_bytes_arrive_as_they_were_sent(authority: Authority, version: str, size: int) -> None:
    opened = open_pair(authority, version)
    data = noise(size)
    assert opened.carry(opened.client, opened.server, data) == data
    assert opened.carry(opened.server, opened.client, data) == data


@VERSIONS
def test_decrypting_is_the_same_fed_whole_or_a_byte_at_a_time(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    data = noise(3 * RECORD + 11)
    sealed = opened.client.encrypt(data)
    assert b"".join(opened.server.decrypt(one) for one in chunks(sealed, 1)) == data
    assert opened.server.decrypt(opened.client.encrypt(data)) == data


@VERSIONS
def test_many_records_in_one_chunk_are_all_decrypted(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    records = [noise(index % 50 + 1) for index in range(1000)]
    sealed = b"".join(opened.client.encrypt(record) for record in records)
    assert len(sealed) < CHUNK
    assert opened.server.decrypt(sealed) == b"".join(records)


@VERSIONS
def test_the_first_record_of_a_chunk_can_be_had_before_the_others(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    opened.carry(opened.server, opened.client, b"tickets come with it")
    end, scratch = opened.client, opened.client.engine.scratch
    first = opened.server.encrypt(b"first")
    assert end.engine.first(give(end.engine, first[:-1])) == 0
    assert end.engine.first(give(end.engine, first[-1:] + opened.server.encrypt(b"second"))) == 5
    assert bytes(scratch.transformed[:5]) == b"first"
    assert end.drain() == b"second"
    opened.server.engine.close()
    assert end.engine.first(give(end.engine, output(opened.server.engine))) == 0
    assert end.engine.status is Status.CLOSED


@VERSIONS
def test_bytes_are_encrypted_where_they_stand(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    scratch = opened.client.engine.scratch
    scratch.received[40:46] = b"packet"
    count = opened.client.engine.encrypt_at(40, 6)
    assert opened.server.decrypt(bytes(scratch.transformed[:count])) == b"packet"


@VERSIONS
def test_decrypting_leaves_nothing_unread_at_the_worst_cut(authority: Authority, version: str) -> None:
    """One byte short of a record before, and a full chunk now: the most that can come out at once."""
    opened = open_pair(authority, version)
    sealed = b"".join(opened.client.encrypt(noise(RECORD)) for _ in range(20))
    record = len(sealed) // 20
    received = opened.server.decrypt(sealed[: record - 1])
    assert received == b""
    received += opened.server.decrypt(sealed[record - 1 :])
    assert received == noise(RECORD) * 20


@VERSIONS
def test_a_close_is_seen_after_the_data_before_it(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    sealed = opened.client.encrypt(b"last words")
    opened.client.engine.close()
    assert opened.server.decrypt(sealed + output(opened.client.engine)) == b"last words"
    assert opened.server.engine.status is Status.CLOSED
    assert opened.server.engine.failure is None


@VERSIONS
def test_after_a_close_the_other_direction_goes_on(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    opened.client.engine.close()
    opened.server.decrypt(output(opened.client.engine))
    data = noise(CHUNK)
    assert opened.carry(opened.server, opened.client, data) == data
    opened.server.engine.close()
    assert opened.client.decrypt(output(opened.server.engine)) == b""
    assert opened.client.engine.status is Status.CLOSED


@VERSIONS
def test_closing_twice_says_nothing_more(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    opened.client.engine.close()
    assert output(opened.client.engine)
    opened.client.engine.close()
    assert output(opened.client.engine) == b""


@VERSIONS
def test_a_broken_record_fails_with_openssls_words_and_an_alert(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    sealed = bytearray(opened.client.encrypt(b"data"))
    sealed[-1] ^= 1
    assert opened.server.decrypt(bytes(sealed)) == b""
    assert opened.server.engine.status is Status.FAILED
    assert "bad record mac" in str(opened.server.engine.failure)
    assert output(opened.server.engine), "the peer is told"


@VERSIONS
def test_what_stands_before_a_broken_record_is_delivered(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    good, bad = opened.client.encrypt(b"good"), bytearray(opened.client.encrypt(b"bad"))
    bad[-1] ^= 1
    assert opened.server.decrypt(good + bytes(bad)) == b"good"
    assert opened.server.engine.status is Status.FAILED


@VERSIONS
def test_a_failed_engine_says_no_close(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    opened.server.decrypt(b"\x17\x03\x03\x00\x05false")
    assert opened.server.engine.status is Status.FAILED
    output(opened.server.engine)
    opened.server.engine.close()
    assert output(opened.server.engine) == b""


@pytest.mark.parametrize(
    ("first_bytes", "words"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "http request"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "wrong version number"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""),
        (b"\x15\x03\x01\x00\x02\x02\x28", "unexpected message"),
        (b"\0" * 4096, ""),
        (noise(4096), ""),
    ],
)
def test_garbage_fails_the_handshake(authority: Authority, first_bytes: bytes, words: str) -> None:
    server = End(context(authority.server_cert))
    server.step(first_bytes)
    assert server.failure is not None
    assert words in str(server.failure)


@pytest.mark.parametrize("seed", range(50))
def test_noise_raises_no_other_error(authority: Authority, seed: int) -> None:
    """A hostile peer's bytes, in any cut, before and after the handshake."""
    source = random.Random(seed)
    server = End(context(authority.server_cert))
    for _ in range(20):
        server.step(source.randbytes(source.randrange(1, 400)))
    opened = open_pair(authority, source.choice([TLS12, TLS13]))
    for _ in range(20):
        opened.server.decrypt(source.randbytes(source.randrange(1, 400)))
    assert opened.server.engine.status is Status.FAILED
    assert take_errors() == ()


def test_a_stream_that_ends_in_a_handshake_has_openssls_words(authority: Authority) -> None:
    assert str(End(context(authority.server_cert)).engine.end_of_stream()) == "unexpected eof while reading"


def test_the_error_queue_is_empty_after_a_failure(authority: Authority) -> None:
    server = End(context(authority.server_cert))
    server.step(b"GET / HTTP/1.0\r\n\r\n")
    assert server.failure is not None
    assert server.failure.errors
    assert take_errors() == ()


def test_a_failure_of_one_engine_does_not_reach_another(authority: Authority) -> None:
    opened = open_pair(authority, TLS13)
    broken = open_pair(authority, TLS13)
    broken.server.decrypt(b"\x17\x03\x03\x00\x05false")
    assert opened.carry(opened.client, opened.server, b"unharmed") == b"unharmed"


@VERSIONS
def test_trimming_keeps_a_record_that_has_come_in_part(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    for cut in (1, 4, 5, 6, 100):
        sealed = opened.client.encrypt(noise(200))
        assert opened.server.decrypt(sealed[:cut]) == b""
        opened.server.engine.trim()
        assert opened.server.decrypt(sealed[cut:]) == noise(200)


@VERSIONS
def test_trimming_between_records_changes_nothing(authority: Authority, version: str) -> None:
    opened = open_pair(authority, version)
    for _ in range(3):
        opened.client.engine.trim()
        opened.server.engine.trim()
        assert opened.carry(opened.client, opened.server, noise(CHUNK)) == noise(CHUNK)


def test_only_the_end_of_a_tls13_servers_handshake_can_wait(authority: Authority) -> None:
    for version, waits in ((TLS12, False), (TLS13, True)):
        opened = open_pair(authority, version)
        assert opened.server.engine.output_can_wait is waits
        assert opened.client.engine.output_can_wait is False


def blocked(engine: Engine) -> bytes | None:
    """What waits for a renegotiation now: read anew, for it changes behind a type checker's back."""
    return engine.blocked


def renegotiation_begun(opened: Pair) -> bytes:
    """The client's first flight of a renegotiation, which TLS 1.2 allows in the middle of data."""
    assert lib.SSL_renegotiate(opened.client.engine.pointer) == 1
    assert not opened.client.engine.handshake()
    return output(opened.client.engine)


def test_what_cannot_be_written_during_a_renegotiation_is_kept_and_sent_after_it(
    authority: Authority,
) -> None:
    opened = open_pair(authority, TLS12)
    client, data = opened.client.engine, noise(CHUNK)
    to_server = renegotiation_begun(opened) + opened.client.encrypt(data)
    assert blocked(client) == data
    received = b""
    for _ in range(20):
        received += opened.server.decrypt(to_server)
        assert opened.client.decrypt(output(opened.server.engine)) == b""
        client.resume()
        to_server = output(client)
        if blocked(client) is None:
            break
    assert blocked(client) is None
    assert received + opened.server.decrypt(to_server) == data


def test_a_refused_renegotiation_leaves_the_connection(authority: Authority) -> None:
    opened = Pair(
        context(TLS12, client=True), context(TLS12, authority.server_cert, "renegotiation = no")
    ).shake_hands()
    assert opened.server.decrypt(renegotiation_begun(opened)) == b""
    assert output(opened.server.engine), "an alert is the answer"
    assert opened.server.engine.status is Status.OPEN


@VERSIONS
def test_an_engine_is_freed_without_the_collector(authority: Authority, version: str) -> None:
    gc.collect()
    gc.disable()
    try:
        opened = open_pair(authority, version)
        engines = [weakref.ref(end.engine) for end in (opened.client, opened.server)]
        del opened
        assert [engine() for engine in engines] == [None, None]
    finally:
        gc.enable()


def test_a_failed_engine_is_freed_without_the_collector(authority: Authority) -> None:
    """A scan of the port would otherwise pile up OpenSSL's memory, of which the collector knows nothing."""
    server_context = context(authority.server_cert)
    gc.collect()
    gc.disable()
    try:
        engine = server_context.engine(Scratch())
        engine.feed(give(engine, b"GET / HTTP/1.0\r\n\r\n"))
        assert fails(engine)
        reference = weakref.ref(engine)
        del engine
        assert reference() is None
    finally:
        gc.enable()


def fails(engine: Engine) -> bool:
    """Whether the handshake raises; whoever catches the error lets go of it."""
    try:
        engine.handshake()
    except TlsError:
        return True
    return False
