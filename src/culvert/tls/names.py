"""Names in certificates: how a log shows them, and whether one is the peer that the operator asked for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

from culvert.tls._openssl import lib, text

_QUOTED = frozenset(",+<>;")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
UNREADABLE = "(unreadable name)"
"""Stands for a name that is not encoded as its type says: no rule can be meant for it."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def subject(certificate: x509.Certificate) -> str:
    """The subject's name as `distinguished_name` shows it, or UNREADABLE."""
    try:
        return distinguished_name(certificate.subject)
    except ValueError:
        return UNREADABLE


def issuer(certificate: x509.Certificate) -> str:
    """The issuer's name as `distinguished_name` shows it, or UNREADABLE."""
    try:
        return distinguished_name(certificate.issuer)
    except ValueError:
        return UNREADABLE


def distinguished_name(name: x509.Name) -> str:
    """A name in the certificate's order, as OpenSSL's one-line form has it: `C=PL, O="Foo, Inc", CN=a`.

    Quotes, backslashes and control characters are escaped (X509_NAME_print_ex(3), ASN1_STRFLGS_ESC_*).
    """
    return ", ".join("+".join(_attribute(attribute) for attribute in rdn) for rdn in name.rdns)


def _attribute(attribute: x509.NameAttribute[str | bytes]) -> str:
    number = lib.OBJ_txt2nid(attribute.oid.dotted_string.encode())
    short = text(lib.OBJ_nid2sn(number)) if number else attribute.oid.dotted_string
    if not isinstance(attribute.value, str):
        return f"{short}=#{attribute.value.hex().upper()}"
    return f"{short}={quoted(attribute.value)}"


def algorithms(certificate: x509.Certificate) -> tuple[str | None, str | None]:
    """The key of a certificate with its size, as in RSA2048 or EC256, and how the certificate is signed, by
    OpenSSL's short name.
    """
    number = lib.OBJ_txt2nid(certificate.signature_algorithm_oid.dotted_string.encode())
    signature = text(lib.OBJ_nid2sn(number)) if number else None
    match certificate.public_key():
        case rsa.RSAPublicKey(key_size=size):
            return f"RSA{size}", signature
        case ec.EllipticCurvePublicKey(key_size=size):
            return f"EC{size}", signature
        case ed25519.Ed25519PublicKey():
            return "ED25519", signature
        case ed448.Ed448PublicKey():
            return "ED448", signature
    return None, signature


def quoted(value: str) -> str:
    """A value of a name as `distinguished_name` shows it."""
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    value = _CONTROL.sub(lambda match: f"\\{ord(match[0]):02X}", value)
    if _QUOTED.intersection(value) or value.startswith(("#", " ")) or value.endswith(" "):
        value = f'"{value}"'
    return value


@dataclass(frozen=True, slots=True)
class Identities:
    """Whom the peer may be: any one match is enough, across all three lists."""

    hosts: tuple[str, ...]
    addresses: tuple[_Address, ...]
    emails: tuple[str, ...]

    @classmethod
    def of(cls, hosts: Iterable[str], addresses: Iterable[str], emails: Iterable[str]) -> Identities:
        """From checkHost, checkIP and checkEmail; the configuration has proved the addresses.

        Raises UnicodeError for a host that cannot be one (RFC 3490).
        """
        return cls(
            tuple(_ascii(host) for host in hosts),
            tuple(ipaddress.ip_address(address) for address in addresses),
            tuple(emails),
        )

    def __bool__(self) -> bool:
        return bool(self.hosts or self.addresses or self.emails)

    def match(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate names one of them."""
        alternative = alternative_names(certificate)
        return (
            self._host_matches(certificate, alternative)
            or any(address in self.addresses for address in alternative.get_values_for_type(x509.IPAddress))
            or self._email_matches(certificate, alternative)
        )

    def _host_matches(self, certificate: x509.Certificate, alternative: x509.SubjectAlternativeName) -> bool:
        if not self.hosts:
            return False
        # The common name counts only where there is no DNS name at all (RFC 6125, 6.4.4).
        presented = alternative.get_values_for_type(x509.DNSName) or _subject(
            certificate, NameOID.COMMON_NAME
        )
        return any(host_matches(name, host) for name in presented for host in self.hosts)

    def _email_matches(self, certificate: x509.Certificate, alternative: x509.SubjectAlternativeName) -> bool:
        if not self.emails:
            return False
        # The subject counts only where there is no other, as with hosts.
        presented = alternative.get_values_for_type(x509.RFC822Name) or _subject(
            certificate, NameOID.EMAIL_ADDRESS
        )
        wanted = {_mailbox(email) for email in self.emails}
        return any(email.isascii() and _mailbox(email) in wanted for email in presented)


def host_matches(presented: str, reference: str) -> bool:
    """Whether a certificate's DNS name covers a host name (RFC 6125, 6.4).

    A wildcard must be the whole leftmost label, covers one label only, and never a top-level domain alone.
    An address is no name, and no wildcard covers it. A reference that begins with a dot stands for every
    name below it, as with OpenSSL.
    """
    if not presented.isascii():  # folding its case could make another name of it
        return False
    name, host = presented.lower().rstrip("."), reference.lower().rstrip(".")
    if host.startswith("."):
        return name.endswith(host) and len(name) > len(host) and "*" not in name
    if not name.startswith("*.") or _is_address(host):
        return name == host and "*" not in name
    suffix = name[1:]
    label, _, rest = host.partition(".")
    return bool(label) and "*" not in suffix and suffix.count(".") >= 2 and f".{rest}" == suffix


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _mailbox(email: str) -> str:
    local, _, domain = email.rpartition("@")
    return f"{local}@{domain.lower()}"


def alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    """The subjectAltName extension, empty where there is none.

    Raises ValueError, DuplicateExtension or UnsupportedGeneralNameType where it cannot be read.
    """
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _subject(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)]
