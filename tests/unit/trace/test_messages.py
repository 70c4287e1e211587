"""Handshake messages: real ones by their fields, and any bytes at all."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.tls.presentation import MalformedError
from culvert.trace import names
from culvert.trace.distinguished import name as distinguished_name
from culvert.trace.messages import Handshake, Message

from ..tls.conftest import Authority
from ..tls.ends import TLS12, TLS13, context
from .sessions import Watched, messages

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


def shown(authority: Authority, version: str, *options: str, client: tuple[str, ...] = ()) -> list[Message]:
    """The messages of a handshake; the options are the server's."""
    session = Watched(
        context(version, *client, client=True),
        context(version, authority.server_cert, *options),
        server_name="server.test",
    )
    session.pair.shake_hands()
    return messages(session.records("client"))


def one(found: list[Message], name: str) -> Message:
    return next(message for message in found if message.name == name)


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + vector(3, body)


@VERSIONS
def test_no_message_of_a_real_session_is_malformed(authority: Authority, version: str) -> None:
    found = shown(
        authority,
        version,
        "verifyChain = yes",
        authority.trust,
        client=(authority.client_cert,),
    )
    assert [one for one in found if one.fault is not None] == []
    assert not [one for one in found if "malformed" in str(one.fields)]


def test_a_client_hello(authority: Authority) -> None:
    hello = one(shown(authority, TLS13, client=("alpn = h2, http/1.1",)), "ClientHello")
    extensions = hello.fields["extensions"]
    assert isinstance(extensions, dict)
    assert extensions["server_name"] == ["server.test"]
    assert extensions["application_layer_protocol_negotiation"] == ["h2", "http/1.1"]
    assert extensions["supported_versions"] == ["TLSv1.3"]
    assert extensions["psk_key_exchange_modes"] == ["psk_dhe_ke"]
    groups = extensions["supported_groups"]
    assert isinstance(groups, list)
    assert groups[0] == "X25519MLKEM768"
    assert extensions["key_share"] == ["X25519MLKEM768 (1216 byte(s))"]
    assert "TLS_AES_256_GCM_SHA384" in str(hello.fields["ciphers"])
    assert "ecdsa_secp256r1_sha256" in str(extensions["signature_algorithms"])


def test_a_hello_retry_request(authority: Authority) -> None:
    found = shown(authority, TLS13, "curves = P-384")
    retry = one(found, "HelloRetryRequest")
    assert retry.fields["extensions"] == {"supported_versions": "TLSv1.3", "key_share": "secp384r1"}
    assert [message.name for message in found].count("ClientHello") == 2


@VERSIONS
def test_certificates_by_subject_and_issuer(authority: Authority, version: str) -> None:
    certificates = one(shown(authority, version), "Certificate").fields["certificates"]
    assert isinstance(certificates, list)
    assert certificates[0].startswith("CN=server (issued by CN=root, until 20")


@VERSIONS
def test_a_certificate_request_names_authorities(authority: Authority, version: str) -> None:
    request = one(shown(authority, version, "verifyChain = yes", authority.trust), "CertificateRequest")
    fields = request.fields
    if version == TLS13:
        assert isinstance(fields["extensions"], dict)
        fields = fields["extensions"]
        assert fields["certificate_authorities"] == ["CN=root"]
    else:
        assert fields["authorities"] == ["CN=root"]
    assert "ecdsa_secp256r1_sha256" in str(fields["signature_algorithms"])


def test_the_group_of_a_key_exchange_in_tls_1_2(authority: Authority) -> None:
    exchange = one(shown(authority, TLS12, "curves = P-256"), "ServerKeyExchange")
    assert exchange.fields["group"] == "secp256r1"
    assert str(exchange.fields["algorithm"]).startswith("ecdsa_") or "rsa" in str(
        exchange.fields["algorithm"]
    )


@VERSIONS
def test_a_ticket_has_its_lifetime(authority: Authority, version: str) -> None:
    ticket = one(shown(authority, version, "sessionCacheTimeout = 1234"), "NewSessionTicket")
    assert ticket.fields["lifetime"] == 1234


def test_half_a_million_certificates_are_not_looked_into() -> None:
    read = Handshake().read(message(11, vector(3, bytes(3 * 170_000))))
    certificates = read.fields["certificates"]
    assert isinstance(certificates, list)
    assert len(certificates) == 33
    assert certificates[-1] == "and 509904 byte(s) more"


def test_key_update() -> None:
    read = Handshake().read(message(24, b"\1"))
    assert (read.name, read.fields) == ("KeyUpdate", {"request_update": "update_requested"})


def test_a_group_of_finite_fields() -> None:
    handshake = Handshake()
    handshake.version, handshake.cipher = names.TLS12, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"
    body = vector(2, b"p" * 256) + vector(2, b"\2") + vector(2, b"y" * 256)
    read = handshake.read(message(12, body + b"\x08\x04" + vector(2, b"s" * 256)))
    assert read.fault is None
    assert (read.fields["group"], read.fields["algorithm"]) == ("prime of 2048 bits", "rsa_pss_rsae_sha256")


def test_a_message_of_dtls_has_a_longer_header() -> None:
    read = Handshake().read(
        b"\x03" + (7).to_bytes(3, "big") + bytes(5) + b"\0\0\x07" + b"\xfe\xfd\x04abcd", datagram=True
    )
    assert (read.name, read.fault) == ("HelloVerifyRequest", None)
    assert read.fields == {"version": "DTLSv1.2", "cookie": "61626364"}


def test_grease_is_named() -> None:
    assert names.cipher(0x2A2A) == "GREASE 0x2A2A"
    assert names.cipher(0x2A3A) == "0x2A3A"


def test_a_message_that_is_cut_off_is_shown_as_such() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()[5:]
    assert Handshake().read(hello).fault is None
    for length in range(len(hello)):
        assert Handshake().read(hello[:length]).fault is not None


KINDS = st.sampled_from([*names.MESSAGES, 99])
BODIES = st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda data: bytes(34) + data))


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_message_of_some_kind(data: bytes, datagram: bool) -> None:
    assert Handshake().read(data, datagram=datagram).length == len(data)


@given(
    KINDS,
    BODIES,
    st.sampled_from([0, *names.VERSIONS]),
    st.sampled_from(["", "TLS_ECDHE_PSK_WITH_X", "TLS_DHE_RSA_WITH_X", "TLS_PSK_WITH_X"]),
)
def test_any_body_of_any_message_is_shown(kind: int, body: bytes, version: int, cipher: str) -> None:
    handshake = Handshake()
    handshake.version, handshake.cipher = version, cipher
    assert handshake.read(message(kind, body)).length == 4 + len(body)


@given(st.lists(st.tuples(st.sampled_from([*names.EXTENSIONS, 2570]), st.binary(max_size=40)), max_size=300))
def test_any_extensions_are_shown(extensions: list[tuple[int, bytes]]) -> None:
    packed = b"".join(kind.to_bytes(2, "big") + vector(2, body) for kind, body in extensions)
    hello = b"\3\3" + bytes(32) + b"\0" + vector(2, b"\x13\x01") + vector(1, b"\0") + vector(2, packed)
    for body in (message(1, hello), message(8, vector(2, packed))):
        assert Handshake().read(body).fault is None


@given(st.binary(max_size=100))
def test_any_bytes_are_a_name_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert isinstance(distinguished_name(data), str)


def test_an_object_identifier_of_a_million_digits_is_malformed() -> None:
    number = b"\xff" * 20000 + b"\x01"
    identifier = b"\x06\x82" + vector(2, number)
    attribute = b"\x30\x82" + vector(2, identifier + b"\x0c\x01a")
    relative = b"\x31\x82" + vector(2, attribute)
    with pytest.raises(MalformedError):
        distinguished_name(b"\x30\x82" + vector(2, relative))
