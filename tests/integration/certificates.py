"""Throw-away certificate authorities and the leaves that the integration tests use."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


def _pem(key: ec.EllipticCurvePrivateKey, password: str | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True)
class Leaf:
    """A certificate with its key, and files of it, all PEM."""

    name: str
    folder: Path
    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey
    intermediates: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        leaf, *above = (
            c.public_bytes(serialization.Encoding.PEM) for c in (self.certificate, *self.intermediates)
        )
        key = _pem(self.private_key)
        self._write(self.cert, leaf)
        self._write(self.chain, leaf + b"".join(above))
        self._write(self.key, key)
        self._write(self.bundle, key + leaf + b"".join(above))

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"

    def _write(self, path: Path, content: bytes) -> Path:
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    @property
    def cert(self) -> Path:
        """The leaf's certificate alone."""
        return self._path(".crt")

    @property
    def chain(self) -> Path:
        """The leaf's certificate, then its intermediates."""
        return self._path(".chain")

    @property
    def key(self) -> Path:
        """The private key, not encrypted."""
        return self._path(".key")

    @property
    def bundle(self) -> Path:
        """Key, leaf and intermediates in one file."""
        return self._path(".pem")

    def encrypted_key(self, password: str) -> Path:
        """The private key, encrypted."""
        return self._write(self._path(".encrypted"), _pem(self.private_key, password))

    def pkcs12(self, password: str | None = None) -> Path:
        """Key, leaf and intermediates in one PKCS#12 file."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        content = pkcs12.serialize_key_and_certificates(
            self.name.encode(), self.private_key, self.certificate, self.intermediates, encryption
        )
        return self._write(self._path(".p12"), content)


class Authority:
    """A certificate authority; with `issuer` an intermediate one."""

    def __init__(self, folder: Path, name: str, issuer: Authority | None = None) -> None:
        self.name = name
        self._folder = folder
        self._issuer = issuer
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        signer = issuer or self
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(signer.name))
            .public_key(self.private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * _DAY)
            .not_valid_after(now + 90 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.private_key.public_key()), critical=False
            )
            .sign(signer.private_key, hashes.SHA256())
        )
        self.cert = folder / f"{name.replace(' ', '-')}.crt"
        self.cert.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def key_file(self) -> Path:
        """The private key, not encrypted, for a peer that signs with it."""
        path = self.cert.with_suffix(".key")
        path.touch(mode=0o600)
        path.write_bytes(_pem(self.private_key))
        return path

    def leaf(
        self,
        name: str,
        *,
        hosts: Sequence[str] = ("localhost",),
        addresses: Sequence[str] = ("127.0.0.1", "::1"),
        emails: Sequence[str] = (),
        uris: Sequence[str] = (),
        days: int = 60,
        self_signed: bool = False,
        folder: Path | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> Leaf:
        """A certificate for `name`, and for loopback if nothing else is said; negative `days`: expired.

        Its files are called by its name, in the authority's folder or in another.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name if self_signed else self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 100 * _DAY)
            .not_valid_after(now + days * _DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        alternatives += [x509.RFC822Name(email) for email in emails]
        alternatives += [x509.UniformResourceIdentifier(uri) for uri in uris]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(key if self_signed else self.private_key, hashes.SHA256())
        intermediates = (self.certificate,) if self._issuer and not self_signed else ()
        return Leaf(name.replace(" ", "-"), folder or self._folder, certificate, key, intermediates)


class Certificates:
    """What most tests need: two authorities that do not know each other, and their leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = Authority(folder, "Test CA")
        self.other_ca = Authority(folder, "Other CA")
        self.intermediate = Authority(folder, "Intermediate CA", self.ca)
        self.server = self.ca.leaf("server")
        self.client = self.ca.leaf("client", emails=("client@example.com",))
        self.stranger = self.other_ca.leaf("stranger")
        self.expired = self.ca.leaf("expired", days=-1)
        self.wrong_host = self.ca.leaf("wrong host", hosts=("elsewhere.example",), addresses=())
        self.chained = self.intermediate.leaf("chained")
        self.self_signed = self.ca.leaf("self signed", self_signed=True)

    def trust(self, name: str, *certificates: Leaf | Authority) -> Path:
        """A file for CAfile that holds these certificates."""
        path = self.folder / f"{name}.trust"
        path.write_bytes(
            b"".join(c.certificate.public_bytes(serialization.Encoding.PEM) for c in certificates)
        )
        return path
