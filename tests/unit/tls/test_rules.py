"""Which identities of a certificate a rule lets pass. What no rule is certain of does not pass."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.config import AllowKind, AllowRule
from culvert.tls.rules import (
    SHOWN_CHARACTERS,
    SHOWN_IDENTITIES,
    Identity,
    Rules,
    described,
    identities,
    matches,
    public_key_info,
)

from ..identities import issue
from .certificates import LATIN_1_NAME, certify, common_name, with_raw_subject
from .ends import service

ROOT = issue("root")


def rules(*lines: str) -> Rules:
    return Rules(service("cert = c.pem", "CAfile = ca.pem", "verifyChain = yes", *lines).allow)


def certificate(
    *names: x509.GeneralName, subject: Sequence[x509.NameAttribute[str]] = ()
) -> x509.Certificate:
    extensions = [x509.SubjectAlternativeName(names)] if names else []
    return certify(subject or common_name("peer"), *extensions, issuer=ROOT).certificate


def unit(text: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, text)


def dns(text: str) -> x509.DNSName:
    return x509.DNSName(text)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def email(text: str) -> x509.RFC822Name:
    return x509.RFC822Name(text)


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_address(text))


def pin(holder: x509.Certificate) -> str:
    key = holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


@pytest.mark.parametrize(
    ("rule", "name", "passes"),
    [
        ("allowDNS = a.example", dns("a.example"), True),
        ("allowDNS = a.example", dns("A.EXAMPLE"), True),
        ("allowDNS = a.example", dns("b.example"), False),
        ("allowDNS = a.example", dns("a.example."), False),
        ("allowDNS = a.example", dns("a.example\0.evil.example"), False),
        ("allowDNS = a.example", dns("*.example"), False),
        ("allowDNS = a.example", dns("x.a.example"), False),
        ("allowDNS = *.a.example", dns("x.a.example"), True),
        ("allowDNS = *.a.example", dns("X.A.example"), True),
        ("allowDNS = *.a.example", dns("_http.a.example"), True),
        ("allowDNS = *.a.example", dns("a.example"), False),
        ("allowDNS = *.a.example", dns(".a.example"), False),
        ("allowDNS = *.a.example", dns("x.y.a.example"), False),
        ("allowDNS = *.a.example", dns("*.a.example"), False),
        ("allowDNS = *.a.example", dns("x.b.example"), False),
        ("allowDNS = *.a.example", dns("x\0.a.example"), False),
        ("allowDNS = *.a.example", dns("x y.a.example"), False),
        ("allowDNS = a.example", uri("a.example:"), False),
        ("allowDNS = a.example", email("x@a.example"), False),
        ("allowURI = spiffe://t.example/a/b", uri("spiffe://t.example/a/b"), True),
        ("allowURI = spiffe://t.example/a/b", uri("spiffe://t.example/a/B"), False),
        ("allowURI = spiffe://t.example/a/b", uri("spiffe://T.example/a/b"), False),
        ("allowURI = spiffe://t.example/a/b", uri("spiffe://t.example/a/b/"), False),
        ("allowURI = spiffe://t.example/a/b", uri("spiffe://t.example/a/b?x"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/b"), True),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/b/c"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/b%2Fc"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/b?c"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/b#c"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/*"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/.."), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/."), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://t.example/a/b\0"), False),
        ("allowURI = spiffe://t.example/a/*", uri("spiffe://u.example/a/b"), False),
        ("allowURI = spiffe://t.example/a/*", uri("https://t.example/a/b"), False),
        ("allowURI = spiffe://t.example/*/x/*", uri("spiffe://t.example/n/x/s"), True),
        ("allowURI = spiffe://t.example/*/x/*", uri("spiffe://t.example/n/y/s"), False),
        ("allowURI = spiffe://t.example/*", dns("spiffe://t.example/a"), False),
        ("allowEmail = Ops@a.example", email("Ops@A.example"), True),
        ("allowEmail = Ops@a.example", email("ops@a.example"), False),
        ("allowEmail = Ops@a.example", email("Ops@a.example\0"), False),
        ("allowEmail = Ops@a.example", email("Ops@b.example"), False),
        ("allowEmail = Ops@a.example", email("a.example"), False),
        ("allowIP = 192.0.2.1", address("192.0.2.1"), True),
        ("allowIP = 192.0.2.1", address("192.0.2.2"), False),
        ("allowIP = 192.0.2.1", address("::ffff:192.0.2.1"), False),
        ("allowIP = 192.0.2.1", dns("192.0.2.1"), False),
        ("allowIP = 192.0.2.0/24", address("192.0.2.200"), True),
        ("allowIP = 192.0.2.0/24", address("192.0.3.1"), False),
        ("allowIP = 0.0.0.0/0", address("::"), False),
        ("allowIP = 0.0.0.0/0", x509.IPAddress(ipaddress.ip_network("192.0.2.0/24")), False),
        ("allowIP = 2001:db8::/32", address("2001:db8::7"), True),
        ("allowIP = 2001:db8::/32", address("2001:db9::7"), False),
        ("allowCN = peer", dns("other.example"), True),
        ("allowCN = Peer", dns("peer"), False),
        ("allowCN = a.example", dns("a.example"), False),
    ],
)
def test_whether_a_rule_matches_a_name(rule: str, name: x509.GeneralName, *, passes: bool) -> None:
    assert (rules(rule).judge(certificate(name)) is not None) is passes


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        ("allowCN = one", True),
        ("allowCN = two", True),
        ("allowCN = One", False),
        ("allowCN = on", False),
        ("allowCN = ops", False),
        ("allowOU = ops", True),
        ("allowOU = Web, and more", True),
        ("allowOU = web", False),
        ("allowOU = one", False),
    ],
)
def test_values_of_the_subject(rule: str, *, passes: bool) -> None:
    subject = [*common_name("one"), *common_name("two"), unit("ops"), unit("Web, and more")]
    assert (rules(rule).judge(certificate(subject=subject)) is not None) is passes


@pytest.mark.parametrize("value", ["peer\0", "pe\ner", "pe\u00e9r", "\uff50eer", " peer"])
def test_a_value_that_is_not_printable_ascii_matches_nothing(value: str) -> None:
    assert rules("allowCN = peer").judge(certificate(subject=common_name(value))) is None
    if value != " peer":  # not even a rule of the same characters, were there one
        assert not matches(AllowRule(AllowKind.CN, value, value), Identity(AllowKind.CN, value))


def test_no_rule_matches_a_certificate_that_names_nobody() -> None:
    bare = certificate(subject=[unit("x")])
    for line in ("CN = x", "DNS = x", "URI = a:x", "Email = x@x", "IP = 0.0.0.0/0"):
        assert rules(f"allow{line}").judge(bare) is None


def test_the_first_rule_that_matches_is_named() -> None:
    holder = certificate(dns("a.example"), uri("spiffe://t.example/a"), subject=common_name("peer"))
    lines = ("allowCN = other", "allowURI = spiffe://t.example/*", "allowDNS = *.example")
    assert str(rules(*lines).judge(holder)) == "Identity accepted by allowDNS = *.example: DNS:a.example"
    assert str(rules(*lines[:2]).judge(holder)) == (
        "Identity accepted by allowURI = spiffe://t.example/*: URI:spiffe://t.example/a"
    )
    assert rules(lines[0]).judge(holder) is None


def test_a_pin_is_of_the_key() -> None:
    mine, other = certificate(), certificate()
    assert rules(f"allowSPKI = sha256:{pin(mine)}").judge(mine) is not None
    assert rules(f"allowSPKI = {pin(mine)}").judge(other) is None


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ec", "ed25519", "rsa"],
)
@pytest.mark.parametrize("version", [x509.Version.v1, x509.Version.v3])
def test_the_key_is_found_in_every_certificate(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, version: x509.Version
) -> None:
    builder = x509.CertificateBuilder().subject_name(ROOT.certificate.subject).public_key(key.public_key())
    like = ROOT.certificate
    made = (
        builder.issuer_name(like.subject)
        .serial_number(1)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .sign(ROOT.key, like.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    body = made.tbs_certificate_bytes
    if version is x509.Version.v1:
        header = body.index(b"\xa0\x03\x02\x01\x02")
        content = body[header + 5 :]
        body = b"\x30\x82" + len(content).to_bytes(2, "big") + content
    expected = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key_info(body) == expected


@given(st.binary(max_size=200))
def test_a_key_is_not_found_in_any_bytes(data: bytes) -> None:
    try:
        public_key_info(data)
    except ValueError:
        return


def test_a_subject_that_cannot_be_read_matches_no_name_and_leaves_the_key() -> None:
    holder = with_raw_subject(LATIN_1_NAME, ROOT).certificate
    assert [identity.kind for identity in identities(holder)] == [AllowKind.SPKI]
    assert rules("allowCN = Müller".replace("ü", "u")).judge(holder) is None
    assert rules(f"allowSPKI = {pin(holder)}").judge(holder) is not None
    assert described(holder) == f"SPKI:sha256:{pin(holder)}, (unreadable name)"


def test_alternative_names_that_cannot_be_read_match_no_rule() -> None:
    raw = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x01\xff")
    holder = certify(common_name("peer"), raw, issuer=ROOT).certificate
    assert rules("allowDNS = *.example", "allowURI = a:b").judge(holder) is None
    assert rules("allowCN = peer").judge(holder) is not None
    assert "(unreadable name)" in described(holder)


def test_a_description_is_bounded() -> None:
    many = certificate(*(dns(f"{'x' * 100}{number}.example") for number in range(500)))
    text = described(many)
    assert text.startswith(f"SPKI:sha256:{pin(many)}, CN=peer, DNS:xxx")
    assert text.count("DNS:") == SHOWN_IDENTITIES - 2
    assert text.endswith(", ...")
    assert len(text) < 100 + SHOWN_IDENTITIES * (SHOWN_CHARACTERS + 20)


def test_a_name_in_a_description_cannot_pass_for_two() -> None:
    assert 'CN="a, DNS:b.example"' in described(certificate(subject=common_name("a, DNS:b.example")))


def test_pre_shared_keys() -> None:
    named = service("cert = c.pem", f"allowSPKI = {'ab' * 32}").allow
    psk = AllowRule(AllowKind.PSK, "one", "one")
    assert Rules(()).allows_psk("anyone")
    assert not Rules(named).allows_psk("one")
    assert Rules((*named, psk)).allows_psk("one")
    assert not Rules((*named, psk)).allows_psk("One")
    assert not Rules((*named, psk)).allows_psk("")
    assert Rules((psk,)).judge(certificate(dns("one"), subject=common_name("one"))) is None


SEGMENT = st.text(st.sampled_from("ab*./%?#@:- \0é"), max_size=4)
PATTERN = st.lists(st.sampled_from(["*", "a", "b"]), min_size=1, max_size=4)


@given(PATTERN, st.lists(SEGMENT, max_size=5))
def test_no_uri_pattern_matches_across_a_segment(pattern: list[str], segments: list[str]) -> None:
    """The matcher agrees with a regular expression that is written for the purpose."""
    rule = "spiffe://t/" + "/".join(pattern)
    value = "spiffe://t/" + "/".join(segments)
    segment = r"(?!\.{1,2}(?:/|\Z))[a-zA-Z0-9._~!$&'()+,;=:@-]+"
    expected = r"spiffe://t/" + "/".join(segment if part == "*" else part for part in pattern)
    found = matches(AllowRule(AllowKind.URI, rule, rule), Identity(AllowKind.URI, value))
    assert found is (re.fullmatch(expected, value) is not None)
    if found:
        assert value.count("/") == rule.count("/")


@given(st.text(st.sampled_from("aB*.-_ \0é"), max_size=8))
def test_no_dns_pattern_matches_more_than_one_label(label: str) -> None:
    rule = AllowRule(AllowKind.DNS, "*.a.example", "*.a.example")
    found = matches(rule, Identity(AllowKind.DNS, f"{label}.a.example"))
    assert found is (re.fullmatch("[A-Za-z0-9_-]{1,63}", label) is not None)


@given(st.sampled_from(AllowKind), st.text(max_size=12))
def test_an_identity_of_another_kind_never_matches(kind: AllowKind, text: str) -> None:
    for other in AllowKind:
        if other is not kind:
            assert not matches(AllowRule(other, text, text), Identity(kind, text))


@settings(max_examples=50)
@given(st.binary(max_size=60))
def test_whatever_an_extension_holds_it_raises_nothing_and_nothing_unknown_passes(raw: bytes) -> None:
    odd = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, raw)
    holder = certify(common_name("somebody"), odd, issuer=ROOT).certificate
    lines = ("CN = peer", "DNS = *.example", "URI = spiffe://t/*", "Email = a@b.example", "IP = 192.0.2.1")
    assert rules(*(f"allow{line}" for line in lines)).judge(holder) is None
    assert described(holder)
