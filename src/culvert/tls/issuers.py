"""The certificate that issued another one, for questions about that other one's revocation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import cryptography.hazmat.backends.openssl.backend  # noqa: F401  loaded late, and a jail has none
from cryptography import x509
from cryptography.hazmat.primitives import hashes

REMEMBERED = 256
"""Most issuers that are remembered: those of one service's peers are few."""


class Issuers:
    """Finds issuers among trusted certificates and those of verified chains.

    An issuer of a verified chain is remembered: a resumed session brings no chain. A chain that was not
    verified must not be given: to a signature that exists, a key can be made that seems to have made it.
    """

    def __init__(self, trusted: Iterable[x509.Certificate]) -> None:
        self._trusted = tuple(trusted)
        self._remembered: OrderedDict[bytes, x509.Certificate] = OrderedDict()

    def find(
        self, certificate: x509.Certificate, chain: Iterable[x509.Certificate] = ()
    ) -> x509.Certificate | None:
        """The issuer of a certificate; `chain` is what OpenSSL verified it by, if it did."""
        for candidate in (*chain, *self._remembered.values(), *self._trusted):
            if _issued(candidate, certificate):
                self._remember(candidate)
                return candidate
        return None

    def _remember(self, issuer: x509.Certificate) -> None:
        digest = issuer.fingerprint(hashes.SHA256())
        self._remembered[digest] = issuer
        self._remembered.move_to_end(digest, last=False)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem()


def _issued(candidate: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(candidate)
    except Exception:  # names that differ, a wrong signature, a key of another kind: not the issuer
        return False
    return True
