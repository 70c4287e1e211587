"""Who may pass: whether a peer's identity is one that the rules allowCN and its kin let in.

Pure matching on a certificate, or on a pre-shared key's identity; any one rule is enough. A name decides
only where it can be read in one way: what is not printable ASCII, what is not encoded as its type says and
what is itself a pattern matches no rule.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from culvert.config.model import AllowKind, AllowRule
from culvert.tls.names import UNREADABLE, alternative_names, quoted

SHOWN_IDENTITIES = 8
"""How many of a certificate's identities a log line names: with the next bound, it stays below its limit."""

SHOWN_CHARACTERS = 80
"""How much of one identity a log line shows."""

_NAME_LABELS = {
    AllowKind.CN: "CN=",
    AllowKind.OU: "OU=",
    AllowKind.DNS: "DNS:",
    AllowKind.URI: "URI:",
    AllowKind.EMAIL: "email:",
    AllowKind.IP: "IP:",
    AllowKind.SPKI: "SPKI:sha256:",
}
_SUBJECT = {AllowKind.CN: NameOID.COMMON_NAME, AllowKind.OU: NameOID.ORGANIZATIONAL_UNIT_NAME}
_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_DNS_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
# RFC 3986, 3.3, without percent-encoding, which could hide a slash, and without the asterisk.
_URI_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()+,;=:@-]+")


_VERSION_TAG = 0xA0
_FIELDS_TO_KEY = 6
"""serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo; a version may stand before."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity that a certificate gives its holder; `value` is as the certificate has it."""

    kind: AllowKind
    value: str

    def __str__(self) -> str:
        text = self.value if len(self.value) <= SHOWN_CHARACTERS else f"{self.value[:SHOWN_CHARACTERS]}..."
        return f"{_NAME_LABELS[self.kind]}{quoted(text)}"


@dataclass(frozen=True, slots=True)
class Passed:
    """Which rule let which identity pass, for the log."""

    rule: AllowRule
    identity: Identity

    def __str__(self) -> str:
        return f"Identity accepted by {self.rule}: {self.identity}"


class Rules:
    """The rules of one service; where there are none, everybody passes who is verified otherwise."""

    def __init__(self, rules: Sequence[AllowRule]) -> None:
        self._rules = tuple(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def judge(self, certificate: x509.Certificate) -> Passed | None:
        """By which rule the certificate passes; None where no rule lets it.

        Raises ValueError for a certificate whose key cannot be found: it must be rejected.
        """
        for identity in identities(certificate):
            for rule in self._rules:
                if matches(rule, identity):
                    return Passed(rule, identity)
        return None

    def allows_psk(self, identity: str) -> bool:
        """Whether the holder of the pre-shared key of this identity may pass.

        It must have proved that it holds the key. Without any rule it may; with rules it needs its own.
        """
        return not self._rules or any(
            rule.kind is AllowKind.PSK and rule.value == identity for rule in self._rules
        )


def matches(rule: AllowRule, identity: Identity) -> bool:
    """Whether the rule lets an identity pass that a certificate has."""
    value = identity.value
    if rule.kind is not identity.kind or not (value.isascii() and value.isprintable()):
        return False
    match rule.kind:
        case AllowKind.DNS:
            return _dns_matches(rule.value, value.lower())
        case AllowKind.URI:
            return _uri_matches(rule.value, value)
        case AllowKind.EMAIL:
            local, _, domain = value.rpartition("@")
            return f"{local}@{domain.lower()}" == rule.value
        case AllowKind.IP:
            return ipaddress.ip_address(value) in ipaddress.ip_network(rule.value)
        case _:
            return value == rule.value


def identities(certificate: x509.Certificate) -> Iterator[Identity]:
    """All that a rule can compare, the key last; names that cannot be read are left out.

    Raises ValueError for a certificate whose key cannot be found.
    """
    for read in (_subject_names, _alternative_names):
        with contextlib.suppress(*_UNREADABLE):
            yield from read(certificate)
    yield _key(certificate)


def described(certificate: x509.Certificate) -> str:
    """The identities of a certificate for a log line: its key, and a bounded number of its names.

    Raises ValueError for a certificate whose key cannot be found.
    """
    shown = [str(_key(certificate))]
    for read in (_subject_names, _alternative_names):
        try:
            shown += map(str, itertools.islice(read(certificate), SHOWN_IDENTITIES))
        except _UNREADABLE:
            shown.append(UNREADABLE)
    left_out = len(shown) > SHOWN_IDENTITIES
    return ", ".join(shown[:SHOWN_IDENTITIES]) + (", ..." if left_out else "")


def _dns_matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("*."):
        return name == pattern
    label, _, rest = name.partition(".")
    return rest == pattern.removeprefix("*.") and _DNS_LABEL.fullmatch(label) is not None


def _uri_matches(pattern: str, uri: str) -> bool:
    wanted, found = pattern.split("/"), uri.split("/")
    return len(wanted) == len(found) and all(
        _is_segment(there) if here == "*" else here == there
        for here, there in zip(wanted, found, strict=True)
    )


def _is_segment(text: str) -> bool:
    return _URI_SEGMENT.fullmatch(text) is not None and text not in (".", "..")


def _subject_names(certificate: x509.Certificate) -> Iterator[Identity]:
    for kind, oid in _SUBJECT.items():
        for attribute in certificate.subject.get_attributes_for_oid(oid):
            if isinstance(attribute.value, str):
                yield Identity(kind, attribute.value)


def _alternative_names(certificate: x509.Certificate) -> Iterator[Identity]:
    for name in alternative_names(certificate):
        match name:
            case x509.DNSName():
                yield Identity(AllowKind.DNS, name.value)
            case x509.UniformResourceIdentifier():
                yield Identity(AllowKind.URI, name.value)
            case x509.RFC822Name():
                yield Identity(AllowKind.EMAIL, name.value)
            case x509.IPAddress(value=ipaddress.IPv4Address() | ipaddress.IPv6Address()):
                yield Identity(AllowKind.IP, str(name.value))


def _key(certificate: x509.Certificate) -> Identity:
    digest = hashlib.sha256(public_key_info(certificate.tbs_certificate_bytes))
    return Identity(AllowKind.SPKI, digest.hexdigest())


def public_key_info(body: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a TBSCertificate (RFC 5280, 4.1), byte by byte as a pin counts it.

    `cryptography` would encode the key again, and not always alike: compressed points, RSA-PSS. Raises
    ValueError where there is none.
    """
    start, end = _element(body, 0)
    fields: list[bytes] = []
    while start < end and len(fields) < _FIELDS_TO_KEY:
        field_start = start
        _, start = _element(body, start)
        if body[field_start] != _VERSION_TAG:
            fields.append(body[field_start:start])
    if len(fields) < _FIELDS_TO_KEY:
        raise ValueError("no public key")
    return fields[-1]


def _element(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER element at `at` starts and where it ends (X.690, 8.1.3)."""
    head = data[at : at + 2]
    if len(head) < 2:
        raise ValueError("a DER element is cut off")
    start, length = at + 2, head[1]
    if length >= 0x80:
        octets = length & 0x7F
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    if start + length > len(data):
        raise ValueError("a DER element is cut off")
    return start, start + length
