"""OCSP (RFC 6960) without a network: requests as bytes, and answers judged.

An answer counts only if all of it holds: it is for this certificate, its signer may speak for the issuer,
its signature is right, it is in its time, and it has the nonce that was sent. Then it says good or revoked;
everything else raises OcspError, whose `doubt` says what was missing. Nothing here turns a fault into `good`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from cryptography.x509.oid import SignatureAlgorithmOID as Oid

from culvert.errors import CulvertError

ANSWER_LIMIT = 15 * 1024
"""Largest answer in bytes that is looked at or stapled: real ones are below 5 kB, and in TLS 1.2 OpenSSL's
clients break off where a staple is longer than 16 kB."""

SKEW = timedelta(minutes=5)
"""How far the responder's clock may be from ours."""

OPEN_END = timedelta(days=1)
"""How old an answer may be that names no nextUpdate: without a bound, one could be replayed for ever."""

OPEN_KEPT = timedelta(minutes=10)
"""How long such an answer is kept: newer information can be had all the time (RFC 6960, 4.2.2.1)."""

NONCE_LENGTH = 32
"""Bytes of a nonce: what RFC 9654 asks for, and the most that RFC 8954 allows."""

URL_LIMIT = 3
"""Most responders of one certificate that are asked."""

_SINGLE_LIMIT = 64
"""Most certificates that one answer may speak of: responders answer for the one that was asked about."""

_SIGNER_LIMIT = 8
"""Most certificates of an answer among which its signer is looked for."""

_WEAK = (hashes.MD5, hashes.SHA1)

_Key = (
    type[rsa.RSAPublicKey]
    | type[ec.EllipticCurvePublicKey]
    | type[ed25519.Ed25519PublicKey]
    | type[ed448.Ed448PublicKey]
)

_SIGNATURES: dict[x509.ObjectIdentifier, tuple[_Key, hashes.HashAlgorithm | None]] = {
    Oid.RSA_WITH_SHA224: (rsa.RSAPublicKey, hashes.SHA224()),
    Oid.RSA_WITH_SHA256: (rsa.RSAPublicKey, hashes.SHA256()),
    Oid.RSA_WITH_SHA384: (rsa.RSAPublicKey, hashes.SHA384()),
    Oid.RSA_WITH_SHA512: (rsa.RSAPublicKey, hashes.SHA512()),
    Oid.ECDSA_WITH_SHA224: (ec.EllipticCurvePublicKey, hashes.SHA224()),
    Oid.ECDSA_WITH_SHA256: (ec.EllipticCurvePublicKey, hashes.SHA256()),
    Oid.ECDSA_WITH_SHA384: (ec.EllipticCurvePublicKey, hashes.SHA384()),
    Oid.ECDSA_WITH_SHA512: (ec.EllipticCurvePublicKey, hashes.SHA512()),
    Oid.ED25519: (ed25519.Ed25519PublicKey, None),
    Oid.ED448: (ed448.Ed448PublicKey, None),
}
"""The signatures that are believed, with the key and the hash of each."""


class Doubt(enum.Enum):
    """Why nothing is proved; the value names the counter."""

    NO_ISSUER = "issuer not found"
    NO_RESPONDER = "no responder"
    NO_ANSWER = "no answer"
    MALFORMED = "malformed answer"
    REFUSED = "refused by the responder"
    OTHER_CERTIFICATE = "answer for another certificate"
    SIGNER = "answer from another key"
    SIGNATURE = "bad signature"
    TIME = "answer out of its time"
    NONCE = "wrong nonce"
    UNKNOWN = "certificate unknown"


class OcspError(CulvertError):
    """There is no conclusive answer. `detail` tells more than `doubt`, for the log."""

    def __init__(self, doubt: Doubt, detail: str) -> None:
        self.doubt = doubt
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.doubt.value}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A conclusive answer. It holds until `until`; where it is not `revoked`, the certificate is good."""

    revoked: bool
    until: datetime
    revoked_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SignerRules:
    """Whose answers are believed: those of the issuer, those of a signer that the issuer certified for it
    and whose certificate the answer brings along, and those of `trusted` certificates.
    """

    issuer: bool = True
    delegated: bool = True
    trusted: tuple[x509.Certificate, ...] = ()

    @classmethod
    def of(cls, flags: Iterable[str], trusted: tuple[x509.Certificate, ...]) -> SignerRules:
        """From OCSPflag and the certificates of CAfile."""
        given = set(flags)
        return cls(
            "NOCASIGN" not in given,
            not given & {"NOINTERN", "NODELEGATED"},
            trusted if "TRUSTOTHER" in given else (),
        )


@dataclass(frozen=True, slots=True)
class _Single:
    algorithm: hashes.HashAlgorithm
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: ocsp.OCSPCertStatus
    this_update: datetime
    next_update: datetime | None
    revoked_at: datetime | None
    reason: x509.ReasonFlags | None


@dataclass(frozen=True, slots=True)
class _Response:
    """What an answer says, read but not yet believed."""

    singles: tuple[_Single, ...]
    algorithm: x509.ObjectIdentifier
    signature: bytes
    signed: bytes
    signer_name: x509.Name | None
    signer_key_hash: bytes | None
    certificates: tuple[x509.Certificate, ...]
    nonce: bytes | None

    def names(self, certificate: x509.Certificate) -> bool:
        """Whether the answer says that this certificate's key signed it (RFC 6960, 4.2.1, ResponderID)."""
        if self.signer_key_hash is not None:
            key = certificate.public_key()
            return self.signer_key_hash == x509.SubjectKeyIdentifier.from_public_key(key).digest
        return self.signer_name == certificate.subject


class Inquiry:
    """The question for the status of one certificate, whose issuer is known for certain."""

    def __init__(self, leaf: x509.Certificate, issuer: x509.Certificate) -> None:
        self._leaf = leaf
        self._issuer = issuer

    def request(self, nonce: bytes | None = None) -> bytes:
        """The request's DER form. The hash is SHA-1: it only names the certificate, and all know it."""
        builder = ocsp.OCSPRequestBuilder().add_certificate(self._leaf, self._issuer, hashes.SHA1())  # noqa: S303
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.build().public_bytes(Encoding.DER)

    def judge(self, der: bytes, now: datetime, rules: SignerRules, nonce: bytes | None = None) -> Answer:
        """What an answer from anywhere proves at `now` (with a time zone). Raises OcspError."""
        if len(der) > ANSWER_LIMIT:
            raise OcspError(Doubt.MALFORMED, f"more than {ANSWER_LIMIT} bytes")
        try:
            return self._judged(_read(der), now, rules, nonce)
        except OcspError:
            raise
        except Exception as error:  # cryptography has a class of its own for each kind of broken answer
            raise OcspError(Doubt.MALFORMED, f"the answer cannot be read: {error}") from None

    def _judged(self, response: _Response, now: datetime, rules: SignerRules, nonce: bytes | None) -> Answer:
        mine = [single for single in response.singles if self._is_for_this(single)]
        if not mine:
            raise OcspError(Doubt.OTHER_CERTIFICATE, "the answer does not speak of this certificate")
        self._check_signature(response, now, rules)
        if nonce is not None and response.nonce != nonce:
            what = "is missing" if response.nonce is None else "is not the one that was sent"
            raise OcspError(Doubt.NONCE, f"the nonce {what}")
        # Of two statements on the same certificate the worse one counts.
        return min((_conclusion(single, now) for single in mine), key=lambda answer: not answer.revoked)

    def _is_for_this(self, single: _Single) -> bool:
        asked = ocsp.OCSPRequestBuilder().add_certificate(self._leaf, self._issuer, single.algorithm).build()
        return (single.name_hash, single.key_hash, single.serial) == (
            asked.issuer_name_hash,
            asked.issuer_key_hash,
            asked.serial_number,
        )

    def _check_signature(self, response: _Response, now: datetime, rules: SignerRules) -> None:
        signers = list(self._signers(response, now, rules))
        if not signers:
            raise OcspError(Doubt.SIGNER, "its signer may not speak for the certificate's issuer")
        if response.algorithm not in _SIGNATURES:
            name = response.algorithm.dotted_string
            raise OcspError(Doubt.SIGNATURE, f"the signature algorithm {name} is not accepted")
        if not any(_is_signed_by(signer, response) for signer in signers):
            raise OcspError(Doubt.SIGNATURE, "the signature is not that of its signer")

    def _signers(self, response: _Response, now: datetime, rules: SignerRules) -> Iterator[x509.Certificate]:
        if rules.issuer and response.names(self._issuer):
            yield self._issuer
        for certificate in rules.trusted:
            if response.names(certificate) and _in_time(certificate, now):
                yield certificate
        if rules.delegated:
            for certificate in response.certificates:
                if response.names(certificate) and self._is_delegated(certificate, now):
                    yield certificate

    def _is_delegated(self, certificate: x509.Certificate, now: datetime) -> bool:
        """Whether the issuer itself has certified this signer for OCSP (RFC 6960, 4.2.2.2)."""
        try:
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            certificate.verify_directly_issued_by(self._issuer)
            weak = isinstance(certificate.signature_hash_algorithm, _WEAK)
        except Exception:  # cryptography has a class of its own for each kind of broken certificate
            return False
        return ExtendedKeyUsageOID.OCSP_SIGNING in usage and not weak and _in_time(certificate, now)


def responders(certificate: x509.Certificate) -> list[str]:
    """The URLs of the OCSP responders that a certificate names, as it writes them, URL_LIMIT at most."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except Exception:  # not there, or the certificate's extensions cannot be read
        return []
    found = [
        description.access_location.value
        for description in access
        if description.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(description.access_location, x509.UniformResourceIdentifier)
    ]
    return list(dict.fromkeys(found))[:URL_LIMIT]


def _read(der: bytes) -> _Response:
    response = ocsp.load_der_ocsp_response(der)
    status = response.response_status
    if status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise OcspError(Doubt.REFUSED, f"the responder says {status.name.replace('_', ' ').lower()}")
    return _contents(response)


def _contents(response: ocsp.OCSPResponse) -> _Response:
    nonce = None
    for extension in response.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = extension.value.nonce
        elif extension.critical:
            oid = extension.oid.dotted_string
            raise OcspError(Doubt.MALFORMED, f"the critical extension {oid} is not known")
    singles = tuple(
        _single(single) for _, single in zip(range(_SINGLE_LIMIT), response.responses, strict=False)
    )
    return _Response(
        singles,
        response.signature_algorithm_oid,
        response.signature,
        response.tbs_response_bytes,
        response.responder_name,
        response.responder_key_hash,
        tuple(response.certificates[:_SIGNER_LIMIT]),
        nonce,
    )


def _single(single: ocsp.OCSPSingleResponse) -> _Single:
    return _Single(
        single.hash_algorithm,
        single.issuer_name_hash,
        single.issuer_key_hash,
        single.serial_number,
        single.certificate_status,
        single.this_update_utc,
        single.next_update_utc,
        single.revocation_time_utc,
        single.revocation_reason,
    )


def _is_signed_by(signer: x509.Certificate, response: _Response) -> bool:
    kind, algorithm = _SIGNATURES[response.algorithm]
    key = signer.public_key()
    if not isinstance(key, kind):
        return False
    try:
        match key:
            case rsa.RSAPublicKey():
                digest = cast(hashes.HashAlgorithm, algorithm)
                key.verify(response.signature, response.signed, padding.PKCS1v15(), digest)
            case ec.EllipticCurvePublicKey():
                digest = cast(hashes.HashAlgorithm, algorithm)
                key.verify(response.signature, response.signed, ec.ECDSA(digest))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(response.signature, response.signed)
    except InvalidSignature:
        return False
    return True


def _conclusion(single: _Single, now: datetime) -> Answer:
    end = single.next_update or single.this_update + OPEN_END
    if single.this_update > now + SKEW:
        raise OcspError(Doubt.TIME, f"the answer is for a time to come: {single.this_update}")
    if end < now - SKEW:
        raise OcspError(Doubt.TIME, f"the answer ended on {end}")
    until = single.next_update or min(end, now + OPEN_KEPT)
    match single.status:
        case ocsp.OCSPCertStatus.GOOD:
            return Answer(False, until)
        case ocsp.OCSPCertStatus.REVOKED:
            reason = single.reason.value if single.reason is not None else None
            return Answer(True, until, single.revoked_at, reason)
        case _:
            raise OcspError(Doubt.UNKNOWN, "the responder does not know the certificate")


def _in_time(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc
