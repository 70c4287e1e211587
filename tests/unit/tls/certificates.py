"""Certificates with the names, the uses and the encodings that a test asks for."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from ..identities import NOW, Identity, write

CLIENT_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER_ONLY = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

LATIN_1_NAME = bytes.fromhex("3011310f300d060355040314064dfc6c6c6572")
"""A CN as a TeletexString of Latin-1: old CAs wrote it, OpenSSL reads it, `cryptography` does not."""


def common_name(text: str) -> list[x509.NameAttribute[str]]:
    """A subject of one common name. What OpenSSL would take is not refused here."""
    return [x509.NameAttribute(x509.NameOID.COMMON_NAME, text, _validate=False)]


def alternative_names(
    hosts: Iterable[str] = (), addresses: Iterable[str] = (), emails: Iterable[str] = ()
) -> x509.SubjectAlternativeName:
    """A subjectAltName extension of these names."""
    return x509.SubjectAlternativeName(
        [
            *(x509.DNSName(host) for host in hosts),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
            *(x509.RFC822Name(email) for email in emails),
        ]
    )


def certify(
    subject: Sequence[x509.NameAttribute[str]],
    *extensions: x509.ExtensionType,
    issuer: Identity | None = None,
    starts_in: float = -10,
    ends_in: float = 365,
) -> Identity:
    """An identity with exactly these extensions; valid between two moments, in days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer is not None else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=starts_in))
        .not_valid_after(NOW + datetime.timedelta(days=ends_in))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Identity(builder.sign(issuer.key if issuer is not None else key, SHA256()), key)


def with_raw_subject(subject: bytes, issuer: Identity) -> Identity:
    """An identity whose subject is this DER, which `cryptography` itself would not write."""
    marker = x509.Name(common_name("M" * 6))
    draft = certify(common_name("M" * 6), issuer=issuer)
    der = marker.public_bytes()
    assert len(subject) == len(der), "the lengths around it must stay as they are"
    body = draft.certificate.tbs_certificate_bytes.replace(der, subject, 1)
    signature = issuer.key.sign(body, ec.ECDSA(SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    content = body + algorithm + _tlv(0x03, b"\0" + signature)
    return Identity(x509.load_der_x509_certificate(_tlv(0x30, content)), draft.key)


def revocation_list(
    issuer: Identity,
    *revoked: Identity,
    signer: Identity | None = None,
    starts_in: float = -1,
    ends_in: float = 30,
    name: x509.Name | None = None,
) -> bytes:
    """A CRL in PEM, valid between two moments, in days from now; `signer` and `name` make a false one."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject if name is None else name)
        .last_update(NOW + datetime.timedelta(days=starts_in))
        .next_update(NOW + datetime.timedelta(days=ends_in))
    )
    for identity in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(identity.certificate.serial_number)
            .revocation_date(NOW - datetime.timedelta(hours=1))
            .build()
        )
    return builder.sign((signer or issuer).key, SHA256()).public_bytes(Encoding.PEM)


def write_identity(path: Path, identity: Identity, *chain: Identity) -> Path:
    """A file that holds the certificate, those above it, and the key."""
    certificates = b"".join(each.cert_pem for each in (identity, *chain))
    return write(path, certificates + identity.key_pem())


def write_trust(path: Path, *trusted: Identity) -> Path:
    """A CAfile."""
    return write(path, b"".join(each.cert_pem for each in trusted), 0o644)


def publish(folder: Path, authority: Identity, *revoked: Identity) -> Path:
    """Have the folder hold the authority's list of these, and no other list of it."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(NOW - datetime.timedelta(days=1))
        .next_update(NOW + datetime.timedelta(days=1))
    )
    for each in revoked:
        serial = each.certificate.serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        builder = builder.add_revoked_certificate(entry)
    name = crypto.X509.from_cryptography(authority.certificate).subject_name_hash()
    pem = builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)
    return write(folder / f"{name:08x}.r0", pem, 0o644)


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content
