"""A PROXY header is the first that a target gets, whatever protocol connects to it, and tells of the TLS."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Generator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from culvert.errors import BackendError
from culvert.negotiate.proxy_header import tlv, version_1, version_2
from culvert.negotiate.proxy_tls import VALUE_LIMIT, common_name, tls_tlvs
from culvert.negotiate.proxying import announcing
from culvert.negotiate.script import (
    Connect,
    Ends,
    Line,
    NegotiationError,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    Step,
    connecting,
    nothing,
)

from .player import SECURED
from .proxy_headers import CLIENT_4

PLAIN = dataclasses.replace(SECURED, cipher="TLS_AES_256_GCM_SHA384")


def certificate(*names: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def changed(**fields: object) -> Secured:
    return Secured(**{**{name: getattr(PLAIN, name) for name in PLAIN.__slots__}, **fields})


def steps(script: Script) -> list[Step]:
    return list(script)


def greeting_before(_: Ends) -> Script:
    yield Connect()
    yield Line(Side.SERVER)


@pytest.mark.parametrize(
    ("protocol", "before", "after"),
    [
        (Protocol(nothing, connecting), [], [Connect(), Send(Side.SERVER, version_1(CLIENT_4))]),
        (Protocol(connecting, nothing), [Connect(), Send(Side.SERVER, version_1(CLIENT_4))], []),
        (
            Protocol(greeting_before, nothing),
            [Connect(), Send(Side.SERVER, version_1(CLIENT_4)), Line(Side.SERVER)],
            [],
        ),
    ],
)
def test_the_header_follows_the_connect(protocol: Protocol, before: list[Step], after: list[Step]) -> None:
    both = announcing(protocol, 1, server=True)
    assert steps(both.before(CLIENT_4)) == before
    assert steps(both.after(CLIENT_4, PLAIN)) == after


@pytest.mark.parametrize(
    ("server", "expected"),
    [(True, version_2(CLIENT_4, tls_tlvs(PLAIN))), (False, version_2(CLIENT_4))],
)
def test_only_a_server_tells_of_its_clients_tls(server: bool, expected: bytes) -> None:
    script = announcing(Protocol(nothing, connecting), 2, server=server).after(CLIENT_4, PLAIN)
    assert steps(script) == [Connect(), Send(Side.SERVER, expected)]


def test_before_the_handshake_nothing_is_known_of_it() -> None:
    script = announcing(Protocol(connecting, nothing), 2, server=True).before(CLIENT_4)
    assert steps(script) == [Connect(), Send(Side.SERVER, version_2(CLIENT_4))]


@pytest.mark.parametrize("failed", [0, 1, 2])
@pytest.mark.parametrize("error", [BackendError("gone"), NegotiationError("gone")])
def test_what_fails_is_the_scripts_own_matter(failed: int, error: Exception) -> None:
    """A connect, the sending of the header, or what the script does next."""

    def apologizing(_: Ends) -> Script:
        try:
            yield Connect()
            yield Line(Side.SERVER)
        except (BackendError, NegotiationError):
            yield Send(Side.CLIENT, b"421\r\n")
            raise

    script = announcing(Protocol(apologizing, nothing), 1, server=True).before(CLIENT_4)
    for _ in range(failed + 1):
        next(script)
    assert script.throw(error) == Send(Side.CLIENT, b"421\r\n")
    with pytest.raises(type(error)):
        next(script)


def test_what_a_script_returns_is_returned() -> None:
    def answering(_: Ends) -> Generator[Step, Any, Any]:
        yield Connect()
        return "an answer"

    script = announcing(Protocol(answering, nothing), 1, server=True).before(CLIENT_4)
    next(script)
    next(script)
    with pytest.raises(StopIteration) as end:
        next(script)
    assert end.value.value == "an answer"


def ssl_field(secured: Secured) -> tuple[int, int, dict[int, bytes]]:
    """Flags, verdict and inner fields of PP2_TYPE_SSL, which stands last."""
    data = tls_tlvs(secured)
    while data[0] != 0x20:
        data = data[3 + int.from_bytes(data[1:3], "big") :]
    assert len(data) == 3 + int.from_bytes(data[1:3], "big")
    flags, verdict, rest = data[3], int.from_bytes(data[4:8], "big"), data[8:]
    fields = {}
    while rest:
        size = int.from_bytes(rest[1:3], "big")
        fields[rest[0]] = rest[3 : 3 + size]
        rest = rest[3 + size :]
    return flags, verdict, fields


def test_a_client_without_a_certificate() -> None:
    fields = {0x21: b"TLSv1.3", 0x23: b"TLS_AES_256_GCM_SHA384"}
    assert ssl_field(PLAIN) == (0x01, 1, fields)


@pytest.mark.parametrize(
    ("verified", "resumed", "flags", "verdict"),
    [(True, False, 0x07, 0), (False, False, 0x07, 1), (True, True, 0x05, 0)],
)
def test_a_client_with_a_certificate(verified: bool, resumed: bool, flags: int, verdict: int) -> None:
    found = ssl_field(changed(certificate=certificate("alice"), verified=verified, resumed=resumed))
    assert found[:2] == (flags, verdict)
    assert found[2][0x22] == b"alice"


def test_the_servers_own_algorithms() -> None:
    found = ssl_field(changed(key_algorithm="RSA2048", signature_algorithm="RSA-SHA256"))
    assert (found[2][0x24], found[2][0x25]) == (b"RSA-SHA256", b"RSA2048")


def test_server_name_and_protocol_stand_in_front() -> None:
    data = tls_tlvs(changed(server_name="www.example.com", protocol="h2"))
    assert data.startswith(tlv(1, b"h2") + tlv(2, b"www.example.com") + b"\x20")


@pytest.mark.parametrize(
    "names", [(), ("alice", "bob"), ("alice\x00.example.com",), ("x" * (VALUE_LIMIT + 1),)]
)
def test_a_name_that_could_be_taken_for_another_is_left_out(
    names: tuple[str, ...], lengthy: Callable[[tuple[str, ...]], bytes]
) -> None:
    assert 0x22 not in ssl_field(changed(certificate=lengthy(names)))[2]


@pytest.fixture
def lengthy() -> Callable[[tuple[str, ...]], bytes]:
    """Certificates with names that the library would not put into one."""

    def make(names: tuple[str, ...]) -> bytes:
        if not names or len(names[0]) <= 64:
            return certificate(*names)
        short = certificate("y" * 64)
        assert common_name(short) == "y" * 64
        return short.replace(b"y" * 64, b"\x00" * 64)

    return make


def test_what_is_no_certificate_has_no_name() -> None:
    assert common_name(b"0\x03\x02\x01\x01") is None
