"""The certificates and lists that a CA signs, field by field."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from culvert.cli.ca.authority import (
    Authority,
    KeyKind,
    Purpose,
    Reason,
    Request,
    Revocation,
    generate_key,
)
from culvert.cli.ca.constraints import parse_permit
from culvert.cli.ca.names import parse
from culvert.errors import ConfigurationError

NOW = datetime.datetime(2026, 5, 4, 12, 30, 15, 999, datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = generate_key(KeyKind.ECDSA)


def make_authority(days: int = 3650, *permitted: str) -> Authority:
    return Authority.create("Test CA", KEY, days * DAY, NOW, map(parse_permit, permitted))


def request(*names: str, purpose: Purpose = Purpose.BOTH, days: int | None = None) -> Request:
    return Request(tuple(map(parse, names)), purpose, days * DAY if days is not None else None)


def test_a_leaf_is_accepted_by_a_verifier_of_another_make() -> None:
    authority = make_authority()
    leaf = authority.issue(request("db.example.com"), generate_key(KeyKind.ECDSA), NOW)
    verifier = PolicyBuilder().store(Store([authority.certificate])).time(NOW)
    chain = verifier.build_server_verifier(x509.DNSName("db.example.com")).verify(leaf, [])
    assert chain == [leaf, authority.certificate]


@pytest.mark.parametrize(
    ("purpose", "usages"),
    [
        (Purpose.SERVER, [ExtendedKeyUsageOID.SERVER_AUTH]),
        (Purpose.CLIENT, [ExtendedKeyUsageOID.CLIENT_AUTH]),
        (Purpose.BOTH, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
    ],
)
def test_a_leaf_is_for_its_end_of_the_tunnel(purpose: Purpose, usages: list[x509.ObjectIdentifier]) -> None:
    leaf = make_authority().issue(request("a.example", purpose=purpose), KEY, NOW)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usages


@pytest.mark.parametrize("kind", KeyKind)
def test_the_usage_of_a_key_is_that_of_its_kind(kind: KeyKind) -> None:
    key = generate_key(kind)
    usage = (
        make_authority()
        .issue(request("a.example"), key, NOW)
        .extensions.get_extension_for_class(x509.KeyUsage)
    )
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_encipherment == (kind is KeyKind.RSA)
    assert not usage.value.key_cert_sign
    if isinstance(key, rsa.RSAPrivateKey):
        assert key.key_size == 3072
    else:
        assert isinstance(key.curve, ec.SECP256R1)


def test_the_first_name_is_the_common_name_if_it_fits() -> None:
    authority = make_authority()
    long_name = f"{'a' * 40}.{'b' * 40}.example"
    short, long = (authority.issue(request(name), KEY, NOW) for name in ("a.example", long_name))
    assert short.subject.rfc4514_string() == "CN=a.example"
    assert long.subject.rfc4514_string() == ""
    names = [c.extensions.get_extension_for_class(x509.SubjectAlternativeName) for c in (short, long)]
    assert [extension.critical for extension in names] == [False, True]


def test_serial_numbers_differ_and_keep_to_twenty_bytes() -> None:
    authority = make_authority()
    serials = {authority.issue(request("a.example"), KEY, NOW).serial_number for _ in range(5)}
    assert len(serials) == 5
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_the_ca_names_itself_by_its_key() -> None:
    names = {
        Authority.create(None, generate_key(KeyKind.ECDSA), DAY, NOW).certificate.subject for _ in range(2)
    }
    assert len(names) == 2


def test_validity_begins_before_now_but_not_before_the_cas() -> None:
    leaf = make_authority().issue(request("a.example", days=10), KEY, NOW)
    assert leaf.not_valid_before_utc == NOW.replace(microsecond=0) - datetime.timedelta(hours=1)
    assert leaf.not_valid_after_utc == NOW.replace(microsecond=0) + 10 * DAY
    authority = Authority(make_authority().certificate, KEY)
    early = authority.issue(request("a.example"), KEY, NOW - datetime.timedelta(minutes=30))
    assert early.not_valid_before_utc == authority.certificate.not_valid_before_utc


def test_a_leaf_does_not_outlive_its_ca() -> None:
    authority = make_authority(100)
    with pytest.raises(ConfigurationError, match=r"outlive its CA.*2026-08-12 \(ask for 90 days or fewer\)"):
        authority.issue(request("a.example", days=91), KEY, NOW + 10 * DAY)
    assert authority.issue(request("a.example"), KEY, NOW).not_valid_after_utc == authority.end


def test_a_ca_that_is_over_issues_nothing() -> None:
    authority = make_authority(10)
    for days in (None, 1):
        with pytest.raises(ConfigurationError, match="expired on 2026-05-14"):
            authority.issue(request("a.example", days=days), KEY, NOW + 10 * DAY)


def test_a_constrained_ca_refuses_other_names_and_says_which() -> None:
    authority = make_authority(100, "example.com")
    assert authority.certificate.extensions.get_extension_for_class(x509.NameConstraints).critical
    authority.issue(request("a.example.com"), KEY, NOW)
    with pytest.raises(ConfigurationError, match=r"issue for DNS:a\.example, IP:10\.0\.0\.1 \("):
        authority.issue(request("a.example.com", "a.example", "10.0.0.1"), KEY, NOW)


def test_a_list_holds_every_revocation_with_its_reason() -> None:
    authority = make_authority()
    revocations = [Revocation(7, NOW, Reason.UNSPECIFIED), Revocation(8, NOW, Reason.KEY_COMPROMISE)]
    crl = authority.revocation_list(3, revocations, 30 * DAY, NOW)
    assert crl.is_signature_valid(KEY.public_key())
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
    assert crl.next_update_utc == NOW.replace(microsecond=0) + 30 * DAY
    first, second = (crl.get_revoked_certificate_by_serial_number(number) for number in (7, 8))
    assert first is not None
    assert second is not None
    assert len(first.extensions) == 0
    assert (
        second.extensions.get_extension_for_class(x509.CRLReason).value.reason
        is x509.ReasonFlags.key_compromise
    )
