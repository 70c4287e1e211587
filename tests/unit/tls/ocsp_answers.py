"""OCSP answers for tests, with the faults that a test asks for."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ..identities import NOW, Identity

HOUR = datetime.timedelta(hours=1)
FOR_OCSP = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])


def answer(
    leaf: Identity,
    issuer: Identity,
    *,
    signer: Identity | None = None,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    this_update: datetime.datetime = NOW - HOUR,
    next_update: datetime.datetime | None = NOW + HOUR,
    nonce: bytes | None = None,
    by_key: bool = False,
    embed: Identity | None = None,
    algorithm: hashes.HashAlgorithm | None = None,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    """An answer on `leaf`, signed by `signer` or the issuer itself. A signer that is not the issuer is
    embedded, or `embed` in its place.
    """
    signer = signer or issuer
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            leaf.certificate,
            issuer.certificate,
            algorithm or hashes.SHA1(),
            status,
            this_update,
            next_update,
            NOW - 24 * HOUR if revoked else None,
            x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(
            ocsp.OCSPResponderEncoding.HASH if by_key else ocsp.OCSPResponderEncoding.NAME, signer.certificate
        )
    )
    if signer is not issuer:
        builder = builder.certificates([(embed or signer).certificate])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.sign(signer.key, digest or hashes.SHA256()).public_bytes(Encoding.DER)
