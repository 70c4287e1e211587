"""The values that allowCN and its kin take, and the form in which they are compared."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.config import AllowKind, AllowRule, Service
from culvert.config.identities import ALLOW_FORMS
from culvert.config.values import BadValue

from .reading import SERVER, errors, service

TRUST = "CAfile = ca.pem\nverifyChain = yes\n"
HEX = "0123456789abcdef" * 4
BASE64 = base64.b64encode(bytes.fromhex(HEX)).decode()


def of(*lines: str) -> Service:
    return service(SERVER + TRUST + "\n".join(lines))


@pytest.mark.parametrize(
    ("option", "written", "value"),
    [
        ("allowCN", "Backup Agent # 7", "Backup Agent # 7"),
        ("allowOU", "ops", "ops"),
        ("allowDNS", "Web.Example.COM", "web.example.com"),
        ("allowDNS", "*.Example.com", "*.example.com"),
        ("allowDNS", "*.internal", "*.internal"),
        ("allowDNS", "*.bücher.example", "*.xn--bcher-kva.example"),
        ("allowURI", "spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/*/sa/web"),
        ("allowURI", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", None),
        ("allowEmail", "Ops@Example.COM", "Ops@example.com"),
        ("allowIP", "192.0.2.1", "192.0.2.1"),
        ("allowIP", "192.0.2.0/24", "192.0.2.0/24"),
        ("allowIP", "2001:DB8:0::1", "2001:db8::1"),
        ("allowIP", "2001:db8::/32", "2001:db8::/32"),
        ("allowSPKI", HEX.upper(), HEX),
        ("allowSPKI", ":".join(HEX[i : i + 2] for i in range(0, 64, 2)), HEX),
        ("allowSPKI", f"sha256:{HEX}", HEX),
        ("allowSPKI", f"SHA256//{BASE64}", HEX),
        ("allowSPKI", f"sha256/{BASE64}", HEX),
        ("allowSPKI", BASE64, HEX),
        ("allowSPKI", BASE64.rstrip("="), HEX),
    ],
)
def test_value(option: str, written: str, value: str | None) -> None:
    assert of(f"{option} = {written}").allow == (AllowRule(AllowKind(option), value or written, written),)


@pytest.mark.parametrize(
    ("option", "written", "complaint"),
    [
        ("allowCN", "", "takes a name of printable ASCII characters, not an empty value"),
        ("allowOU", "Zürich", 'takes a name of printable ASCII characters, not "Zürich"'),
        ("allowDNS", "*", 'takes a name in which "*." stands for the first label alone, not "*"'),
        ("allowDNS", "a.*.example", 'takes a name in which "*." stands for the first label alone'),
        ("allowDNS", "web*.example.com", 'takes a name in which "*." stands for the first label alone'),
        ("allowDNS", "*.*.example.com", 'takes a name in which "*." stands for the first label alone'),
        ("allowDNS", "*.", 'takes a DNS name, in front of which "*." may stand, not "*."'),
        ("allowDNS", "a..example", 'takes a DNS name, in front of which "*." may stand'),
        ("allowDNS", "example.com.", 'takes a DNS name, in front of which "*." may stand'),
        ("allowDNS", f"{'a' * 64}.example", 'takes a DNS name, in front of which "*." may stand'),
        ("allowDNS", ".".join(["abcdefg"] * 33), 'takes a DNS name, in front of which "*." may stand'),
        ("allowDNS", "192.0.2.1", "(an IP address is a matter for allowIP)"),
        ("allowURI", "example.org/web", "takes a URI of ASCII characters with its scheme"),
        ("allowURI", "spiffe://example.org/ü", "takes a URI of ASCII characters with its scheme"),
        ("allowURI", "spiffe://*/web", 'takes a URI in which "*" is a whole segment of the path'),
        ("allowURI", "spiffe://*.example.org/web", 'takes a URI in which "*" is a whole segment'),
        ("allowURI", "spiffe://example.org/we*", 'takes a URI in which "*" is a whole segment of the path'),
        ("allowURI", "spiffe://example.org/**", 'takes a URI in which "*" is a whole segment of the path'),
        ("allowURI", "spiffe://example.org/a?*", 'takes a URI in which "*" is a whole segment of the path'),
        ("allowURI", "urn:*", 'takes a URI in which "*" is a whole segment of the path'),
        ("allowURI", "spiffe://a/" + "b" * 2048, "takes a URI of ASCII characters with its scheme"),
        ("allowEmail", "example.com", "takes one e-mail address of ASCII characters, without a wildcard"),
        ("allowEmail", "*@example.com", "takes one e-mail address of ASCII characters, without a wildcard"),
        ("allowEmail", "a@b@example.com", "takes one e-mail address of ASCII characters"),
        ("allowIP", "example.com", "takes an IP address, or ADDRESS/LENGTH"),
        ("allowIP", "192.0.2.0/33", "takes an IP address, or ADDRESS/LENGTH"),
        ("allowIP", "192.0.2.0/255.255.255.0", "takes an IP address, or ADDRESS/LENGTH"),
        ("allowIP", "192.0.2.0/", "takes an IP address, or ADDRESS/LENGTH"),
        ("allowIP", "fe80::1%eth0", "takes an IP address, or ADDRESS/LENGTH"),
        ("allowIP", "192.0.2.7/24", '(did you mean "192.0.2.0/24"?)'),
        ("allowSPKI", HEX[1:], "takes a SHA-256 digest, 64 hexadecimal digits or 44 of base64"),
        ("allowSPKI", f"sha1:{HEX[:40]}", "takes a SHA-256 digest"),
        ("allowSPKI", f"sha512:{HEX}", "takes a SHA-256 digest"),
        ("allowSPKI", BASE64[:-2] + "==", "takes a SHA-256 digest"),
        ("allowSPKI", BASE64 + "=", "takes a SHA-256 digest"),
        ("allowPSK", "name:secret", "takes an identity without a colon, as PSKsecrets has it"),
        ("allowPSK", "a" * 257, "takes a printable identity"),
    ],
)
def test_value_that_could_match_nobody(option: str, written: str, complaint: str) -> None:
    (error,) = errors(f"[test]\n{SERVER}{TRUST}{option} = {written}")
    assert error.startswith(f'7: "{option}" takes ')
    assert complaint in error


def test_rules_stand_in_the_order_of_the_file() -> None:
    kinds = [rule.kind for rule in of("allowOU = b", "allowCN = a", "allowOU = a").allow]
    assert kinds == [AllowKind.OU, AllowKind.CN, AllowKind.OU]


def test_a_rule_is_shown_as_it_is_written() -> None:
    (rule,) = of("allowDNS = *.Example.com").allow
    assert str(rule) == "allowDNS = *.Example.com"


@given(st.sampled_from(AllowKind), st.one_of(st.text(), st.text(st.sampled_from("aB0*.:/@%-_=+ é#"))))
def test_any_text_gives_one_form_or_one_error(kind: AllowKind, text: str) -> None:
    parse = ALLOW_FORMS[kind].parse
    try:
        rule = parse(text)
    except BadValue:
        return
    assert (rule.kind, rule.written) == (kind, text)
    assert rule.value.isprintable()
    assert parse(rule.value).value == rule.value
