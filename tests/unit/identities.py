"""Keys and certificates for tests, with the faults that a test asks for."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: str | None = None) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(password))

    def pkcs12(self, password: str | None = None) -> bytes:
        return pkcs12.serialize_key_and_certificates(
            b"test", self.key, self.certificate, None, _encryption(password)
        )


def issue(
    name: str, issuer: Identity | None = None, *, starts_in: float = -10, ends_in: float = 365
) -> Identity:
    """An identity that is valid between two moments, in days from now; without an issuer self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=starts_in))
        .not_valid_after(NOW + datetime.timedelta(days=ends_in))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer.key if issuer is not None else key, SHA256())
    )
    return Identity(certificate, key)


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """A file with these permissions, whatever the umask is."""
    path.write_bytes(data)
    path.chmod(mode)
    return path


def _encryption(password: str | None) -> KeySerializationEncryption:
    return NoEncryption() if password is None else BestAvailableEncryption(password.encode())
