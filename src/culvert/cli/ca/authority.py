"""Builds what a certificate authority signs: its own certificate, those that it issues, revocation lists.

Nothing here touches a file or reads the clock: `now` is an aware time.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from culvert.cli.ca import names as naming
from culvert.cli.ca.constraints import constrain, constraints_of, permits
from culvert.errors import ConfigurationError

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LEAF_LIFE = datetime.timedelta(days=365)
"""What a certificate lives if nothing else is asked for, or shorter where its CA ends before that."""

COMMON_NAME_LIMIT = 64
"""ub-common-name of RFC 5280, in characters."""

_RSA_BITS = 3072
_CLOCK_TOLERANCE = datetime.timedelta(hours=1)
"""What is issued counts from before now, for a peer's clock may be behind."""


class KeyKind(enum.StrEnum):
    """The kinds of key that are made."""

    ECDSA = "ecdsa"
    RSA = "rsa"


class Purpose(enum.StrEnum):
    """Which end of a tunnel a certificate is for."""

    SERVER = "server"
    CLIENT = "client"
    BOTH = "both"


class Reason(enum.StrEnum):
    """Why a certificate was revoked, by the names of RFC 5280, 5.3.1."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


_USAGES = {
    Purpose.SERVER: (ExtendedKeyUsageOID.SERVER_AUTH,),
    Purpose.CLIENT: (ExtendedKeyUsageOID.CLIENT_AUTH,),
    Purpose.BOTH: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a certificate is asked to be.

    `names` is not empty. `life` None: LEAF_LIFE, or to the end of the CA. `common_name` None: the first name.
    """

    names: tuple[x509.GeneralName, ...]
    purpose: Purpose
    life: datetime.timedelta | None = None
    common_name: str | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """One line of a revocation list."""

    serial: int
    time: datetime.datetime
    reason: Reason


def generate_key(kind: KeyKind) -> SigningKey:
    """A new key: ECDSA on P-256, or RSA with 3072 bits, which are as hard to break."""
    if kind is KeyKind.RSA:
        return rsa.generate_private_key(65537, _RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: SigningKey, pass_phrase: bytes | None = None) -> bytes:
    """A private key as PKCS#8 in PEM, encrypted where there is a pass phrase."""
    encryption: KeySerializationEncryption = NoEncryption()
    if pass_phrase is not None:
        encryption = BestAvailableEncryption(pass_phrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that signs leaves itself: `key` belongs to `certificate`, which signed itself."""

    certificate: x509.Certificate
    key: SigningKey

    @classmethod
    def create(
        cls,
        name: str | None,
        key: SigningKey,
        life: datetime.timedelta,
        now: datetime.datetime,
        permitted: Iterable[x509.GeneralName] = (),
    ) -> Authority:
        """A new CA. Without a name it gets one that no other CA has: peers look CAs up by their names.

        `permitted`: the only names that it can issue for, if there are any (see `constraints`).
        """
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        subject = _common_name(name or f"Culvert CA {identifier.digest[:4].hex()}")
        builder = (
            _begin(subject, subject, now - _CLOCK_TOLERANCE, now + life)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(identifier, critical=False)
        )
        subtrees = tuple(permitted)
        if subtrees:
            builder = builder.add_extension(constrain(subtrees), critical=True)
        return cls(builder.sign(key, SHA256()), key)

    @property
    def end(self) -> datetime.datetime:
        """When the CA's own certificate expires."""
        return self.certificate.not_valid_after_utc

    def issue(self, request: Request, key: SigningKey, now: datetime.datetime) -> x509.Certificate:
        """A certificate for the public half of `key`. Raises ConfigurationError where the CA must not."""
        self._assert_permitted(request.names)
        start = max(now - _CLOCK_TOLERANCE, self.certificate.not_valid_before_utc)
        subject = self._subject(request)
        is_rsa = isinstance(key, rsa.RSAPrivateKey)
        return (
            _begin(subject, self.certificate.subject, start, self._end_of(request, now))
            .public_key(key.public_key())
            # Without a subject the names are all that there is (RFC 5280, 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName(request.names), critical=not subject.rdns)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True, key_encipherment=is_rsa), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES[request.purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.key, SHA256())
        )

    def revocation_list(
        self,
        number: int,
        revocations: Iterable[Revocation],
        life: datetime.timedelta,
        now: datetime.datetime,
    ) -> x509.CertificateRevocationList:
        """A CRL that is to be replaced within `life`; `number` must be above that of every earlier one."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(_whole(now - _CLOCK_TOLERANCE))
            .next_update(_whole(now + life))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for revocation in revocations:
            builder = builder.add_revoked_certificate(_revoked(revocation))
        return builder.sign(self.key, SHA256())

    def _assert_permitted(self, names: Iterable[x509.GeneralName]) -> None:
        constraints = constraints_of(self.certificate)
        if constraints is None:
            return
        refused = [naming.describe(name) for name in names if not permits(constraints, name)]
        if refused:
            raise ConfigurationError.single(
                f"This CA is not permitted to issue for {', '.join(refused)}",
                hint="`culvert ca show` lists what it may issue for",
            )

    def _end_of(self, request: Request, now: datetime.datetime) -> datetime.datetime:
        if now >= self.end:
            raise ConfigurationError.single(
                f"The CA's own certificate expired on {self.end:%Y-%m-%d}", hint="make a new CA"
            )
        if request.life is None:
            return min(now + LEAF_LIFE, self.end)
        if _whole(now + request.life) > self.end:
            left = (self.end - _whole(now)).days
            raise ConfigurationError.single(
                f"The certificate would outlive its CA, which expires on {self.end:%Y-%m-%d}",
                hint=f"ask for {left} days or fewer" if left else "make a new CA",
            )
        return now + request.life

    def _subject(self, request: Request) -> x509.Name:
        first = request.names[0]
        text = request.common_name or naming.show(first)
        # OpenSSL takes a common name that looks like a DNS name for one, and 10.0.0.1 does; constraints on
        # DNS names would then refuse a certificate that has no DNS name at all.
        if text == naming.show(first) and isinstance(first, x509.IPAddress):
            text = f"IP:{text}" if constraints_of(self.certificate) is not None else text
        return _common_name(text) if len(text) <= COMMON_NAME_LIMIT else x509.Name([])

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _begin(
    subject: x509.Name, issuer: x509.Name, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_whole(start))
        .not_valid_after(_whole(end))
    )


def _revoked(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial)
        .revocation_date(_whole(revocation.time))
    )
    # RFC 5280, 5.3.1: a reason that says nothing is left out.
    if revocation.reason is not Reason.UNSPECIFIED:
        reason = x509.CRLReason(x509.ReasonFlags(revocation.reason.value))
        builder = builder.add_extension(reason, critical=False)
    return builder.build()


def _whole(time: datetime.datetime) -> datetime.datetime:
    """To the second, which is all that a certificate holds."""
    return time.replace(microsecond=0)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
