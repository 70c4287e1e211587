"""Names in certificates: matched as RFC 6125 says, shown as OpenSSL's one-line form shows them."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509 import NameOID

from culvert.tls.names import Identities, distinguished_name, host_matches

from .certificates import alternative_names, certify, common_name

KELVIN = "\u212a"
"""A letter that `str.lower` makes a plain k of."""


def certificate(
    *,
    name: str = "nobody",
    email: str | None = None,
    hosts: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
    emails: tuple[str, ...] = (),
) -> x509.Certificate:
    subject = common_name(name)
    if email is not None:
        subject.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, email, _validate=False))
    extensions = [alternative_names(hosts, addresses, emails)] if hosts or addresses or emails else []
    return certify(subject, *extensions).certificate


@pytest.mark.parametrize(
    ("presented", "reference"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.COM"),
        ("example.com", "example.com."),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "xn--mller-kva.example.com"),
        ("xn--mller-kva.example", "xn--mller-kva.example"),
        ("a.b.example.com", ".example.com"),
        ("a.example.com", ".example.com"),
    ],
)
def test_a_host_name_that_is_covered(presented: str, reference: str) -> None:
    assert host_matches(presented, reference)


@pytest.mark.parametrize(
    ("presented", "reference"),
    [
        ("example.com", "example.org"),
        ("example.com", "a.example.com"),
        ("a.example.com", "example.com"),
        ("*.example.com", "example.com"),
        ("*.example.com", "a.b.example.com"),
        ("*.example.com", ".example.com"),
        ("*.com", "example.com"),
        ("*", "example"),
        ("*.*.example.com", "a.b.example.com"),
        ("a.*.example.com", "a.b.example.com"),
        ("f*.example.com", "foo.example.com"),
        ("*foo.example.com", "foo.example.com"),
        ("example.com\0.evil.test", "example.com"),
        ("example.com\0", "example.com"),
        (" example.com", "example.com"),
        ("example.com", ".example.com"),
        ("notexample.com", ".example.com"),
        ("*.example.com", ".com"),
        (f"ban{KELVIN}.example", "bank.example"),
        (f"*.ban{KELVIN}.example", "www.bank.example"),
        ("*.0.0.1", "127.0.0.1"),
    ],
)
def test_a_host_name_that_is_not_covered(presented: str, reference: str) -> None:
    assert not host_matches(presented, reference)


def test_no_identity_asked_for_is_false() -> None:
    assert not Identities.of((), (), ())
    assert Identities.of(("a",), (), ())


@pytest.mark.parametrize(
    "identities",
    [
        Identities.of(["other.test", "host.test"], [], []),
        Identities.of([], ["192.0.2.9", "192.0.2.1"], []),
        Identities.of([], ["2001:db8:0::1"], []),
        Identities.of([], [], ["user@HOST.test"]),
        Identities.of(["other.test"], ["192.0.2.9"], ["user@host.test"]),
    ],
)
def test_any_one_match_is_enough(identities: Identities) -> None:
    shown = certificate(
        hosts=("host.test",), addresses=("192.0.2.1", "2001:db8::1"), emails=("user@host.test",)
    )
    assert identities.match(shown)


@pytest.mark.parametrize(
    "identities",
    [
        Identities.of(["user@host.test"], [], []),
        Identities.of(["192.0.2.1"], [], []),
        Identities.of([], ["192.0.2.2"], []),
        Identities.of([], ["::ffff:192.0.2.1"], []),
        Identities.of([], [], ["USER@host.test"]),
        Identities.of([], [], ["host.test"]),
        Identities.of([], [], ["user@sub.host.test"]),
    ],
)
def test_a_name_of_another_kind_or_case_is_no_match(identities: Identities) -> None:
    shown = certificate(hosts=("host.test",), addresses=("192.0.2.1",), emails=("user@host.test",))
    assert not identities.match(shown)


def test_the_common_name_counts_where_there_is_no_dns_name() -> None:
    wanted = Identities.of(["host.test"], [], [])
    assert wanted.match(certificate(name="host.test"))
    assert wanted.match(certificate(name="host.test", addresses=("192.0.2.1",)))
    assert not wanted.match(certificate(name="host.test", hosts=("other.test",)))


def test_the_common_name_is_no_address() -> None:
    assert not Identities.of([], ["192.0.2.1"], []).match(certificate(name="192.0.2.1"))


def test_the_subjects_email_counts_where_there_is_no_other() -> None:
    """As X509_check_email has it, and the common name for hosts."""
    wanted = Identities.of([], [], ["user@host.test"])
    assert wanted.match(certificate(email="user@host.test"))
    assert not wanted.match(certificate(email="user@host.test", emails=("other@host.test",)))


@pytest.mark.parametrize("name", [f"ban{KELVIN}.test", "bank.test\0", "bank.test\n", "\uff42ank.test"])
def test_a_common_name_that_only_looks_alike_is_no_match(name: str) -> None:
    assert not Identities.of(["bank.test"], [], []).match(certificate(name=name))


def test_an_email_that_only_looks_alike_is_no_match() -> None:
    wanted = Identities.of([], [], ["user@bank.test"])
    assert not wanted.match(certificate(email=f"user@ban{KELVIN}.test"))


def test_a_name_beyond_ascii_is_looked_for_in_its_ascii_form() -> None:
    assert Identities.of(["müller.example"], [], []).match(certificate(hosts=("xn--mller-kva.example",)))


def subject(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return certify(
        [x509.NameAttribute(oid, text, _validate=False) for oid, text in attributes]
    ).certificate.subject


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ([(NameOID.COUNTRY_NAME, "PL"), (NameOID.COMMON_NAME, "a b")], "C=PL, CN=a b"),
        ([(NameOID.ORGANIZATION_NAME, "Foo, Inc"), (NameOID.COMMON_NAME, "x")], 'O="Foo, Inc", CN=x'),
        ([(NameOID.EMAIL_ADDRESS, "a@b.test")], "emailAddress=a@b.test"),
        ([(NameOID.DOMAIN_COMPONENT, "test"), (NameOID.USER_ID, "u")], "DC=test, UID=u"),
        ([(NameOID.COMMON_NAME, " x ")], 'CN=" x "'),
        ([(NameOID.COMMON_NAME, "a=b")], "CN=a=b"),
        ([(NameOID.COMMON_NAME, "#abc")], 'CN="#abc"'),
        ([(NameOID.COMMON_NAME, "Żółć")], "CN=Żółć"),
        ([(NameOID.COMMON_NAME, "a, CN=root")], 'CN="a, CN=root"'),
        ([(NameOID.GIVEN_NAME, "g"), (NameOID.SURNAME, "s"), (NameOID.TITLE, "t")], "GN=g, SN=s, title=t"),
    ],
)
def test_a_name_is_shown_as_stunnel_shows_it(
    attributes: list[tuple[x509.ObjectIdentifier, str]], shown: str
) -> None:
    assert distinguished_name(subject(*attributes)) == shown


@pytest.mark.parametrize("hostile", ["ad\0min", "a\nREMOTE_HOST=1", "\x1b[2J", "a\x7f"])
def test_a_control_character_neither_passes_nor_vanishes(hostile: str) -> None:
    """A program is told the name: `admin` must not be had by a NUL, nor a second line by a newline."""
    shown = distinguished_name(subject((NameOID.COMMON_NAME, hostile)))
    assert shown.isprintable()
    assert len(shown) > len(f"CN={hostile}") - 1
    assert shown not in ("CN=admin", "CN=a")


def test_several_attributes_of_one_part_are_joined() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.COMMON_NAME, "a"),
                    x509.NameAttribute(NameOID.SERIAL_NUMBER, "1"),
                ]
            )
        ]
    )
    assert distinguished_name(name) in ("CN=a+serialNumber=1", "serialNumber=1+CN=a")
