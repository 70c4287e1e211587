"""Whether the peer's certificate is good enough, judged while the handshake runs, so that the peer is told.

OpenSSL calls back for each certificate from the root down to the leaf (depth 0), and once more for each
fault that it finds. The callback is given to the binding directly: pyOpenSSL's wrapper would reset the
verdict that the session must remember. It fails closed: an exception in it rejects, and `Verification.passed`
is only set by a leaf that was looked at.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from culvert.config.model import VerifyPolicy
from culvert.tls._openssl import certificate_der, lib, text
from culvert.tls.names import Identities, subject
from culvert.tls.rules import Rules, described

# X509_V_ERR numbers (X509_STORE_CTX_get_error(3)): they choose the alert that the peer gets, bad_certificate
# for both of these. There is none that OpenSSL makes access_denied of (RFC 8446, 6.2).
_CERT_REJECTED = 28
_HOSTNAME_MISMATCH = 62

NO_RULE_MATCHES = "no allow rule matches"
"""The cause by which peers are counted whom no rule on identity lets pass."""

_PATH_FAULTS = frozenset({2, 18, 19, 20, 21, 27})
"""What can be wrong with the way from a leaf to an issuer: none found, self-signed, not trusted."""

_SAME_SUBJECT_LIMIT = 100
"""How many certificates of one subject hash are looked at in CApath: a bound on reading, not on trust."""


class Outcome(enum.Enum):
    """What was found of one certificate."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the log."""

    outcome: Outcome
    text: str


@dataclass(slots=True)
class Verification:
    """What became of the peer's certificate on one connection."""

    findings: list[Finding] = field(default_factory=list)
    passed: bool = False
    fault: int = 0
    """The X509_V_ERR number of what it was rejected for; 0 if it was not."""
    cause: str | None = None
    """The same in words, of a limited number: to be counted by."""
    rule: str | None = None
    """The rule on identity that let the peer pass."""
    psk_identity: str | None = None
    """The identity of the pre-shared key that the handshake was tried with."""
    psk_proven: bool = False
    """Whether the peer has proved that it holds that key, and may pass."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is wrong with a leaf: OpenSSL's number, what it is counted as, and the reason in the log."""

    number: int
    cause: str
    reason: str


class Pins:
    """The certificates that are trusted as they are: those in CAfile, and those in CApath by subject hash."""

    def __init__(self, certificates: list[x509.Certificate], directory: str | None) -> None:
        self._digests = frozenset(_digest(c) for c in certificates)
        self._directory = Path(directory) if directory is not None else None

    def holds(self, certificate: x509.Certificate, subject_hash: int) -> bool:
        """Whether the certificate itself, byte by byte, is among them."""
        wanted = _digest(certificate)
        return wanted in self._digests or any(
            _digest(other) == wanted for other in self._in_directory(subject_hash)
        )

    def _in_directory(self, subject_hash: int) -> Iterator[x509.Certificate]:
        if self._directory is None:
            return
        for number in range(_SAME_SUBJECT_LIMIT):
            try:
                data = (self._directory / f"{subject_hash:08x}.{number}").read_bytes()
            except OSError:
                return
            try:
                yield from x509.load_pem_x509_certificates(data)
            except ValueError:
                continue


class Verifier:
    """The verification that one service asks for. It is the same for all of its connections."""

    def __init__(
        self, policy: VerifyPolicy, identities: Identities, pins: Pins, rules: Rules, *, lenient: bool
    ) -> None:
        """`lenient` lets the handshake of a peer whose certificate fails go on: the fault is kept."""
        self.policy = policy
        self.lenient = lenient
        self._rules = rules
        self._identities = identities
        self._pins = pins

    def judge(self, verification: Verification, ok: int, store: Any) -> int:
        """OpenSSL's callback for one certificate (SSL_CTX_set_verify(3)): 1 goes on, 0 ends the handshake.

        The error that it leaves in the store is the one that the session remembers: a fault of this policy,
        or none, whatever OpenSSL found besides.
        """
        if self._accepts(verification, ok, store):
            lib.X509_STORE_CTX_set_error(store, verification.fault)
            return 1
        verification.passed = False
        # The first fault is what the others follow from, and what ends the handshake where it may end.
        verification.fault = verification.fault or lib.X509_STORE_CTX_get_error(store)
        lib.X509_STORE_CTX_set_error(store, verification.fault)
        return int(self.lenient)

    def _accepts(self, verification: Verification, ok: int, store: Any) -> bool:
        """Whether this callback brings nothing against the certificate; if not, the store has the error."""
        depth = lib.X509_STORE_CTX_get_error_depth(store)
        current = lib.X509_STORE_CTX_get_current_cert(store)
        certificate = x509.load_der_x509_certificate(certificate_der(current))
        name = subject(certificate)
        if not ok:
            return self._tolerates(verification, store, depth, name)
        if depth > 0 or verification.fault:
            return True
        name_hash = lib.X509_NAME_hash(lib.X509_get_subject_name(current))
        fault = self._leaf_fault(verification, certificate, name_hash)
        if fault is not None:
            lib.X509_STORE_CTX_set_error(store, fault.number)
            verification.cause = fault.cause
            self._reject(verification, fault.reason, depth, name)
            return False
        if not verification.passed:
            verification.passed = True
            verification.findings.append(
                Finding(Outcome.ACCEPTED, f"Certificate accepted at depth=0: {name}")
            )
        return True

    def recall(self, verification: Verification, certificate: bytes | None) -> bool:
        """Whether the peer of a resumed session may pass, by the certificate that the session remembers.

        Chain, pin and subject were judged when the session was made, and that verdict stands. The rules on
        identity are asked again, for the log must say of every connection by which of them it was let in.
        """
        if not self._rules:
            return True
        if certificate is None:
            return False
        fault = self._identity_fault(verification, x509.load_der_x509_certificate(certificate))
        if fault is not None:
            verification.findings.append(Finding(Outcome.REJECTED, f"CERT: {fault}"))
        return fault is None

    def _tolerates(self, verification: Verification, store: Any, depth: int, name: str) -> bool:
        """Whether a fault that OpenSSL found does not matter to this policy.

        A pinned leaf needs no path to an issuer, nor does one whose key is pinned (allowSPKI, the one rule on
        certificates that needs no chain); it must still be in its time and of the right purpose.
        """
        error = lib.X509_STORE_CTX_get_error(store)
        reason = text(lib.X509_verify_cert_error_string(error))
        of_path = depth > 0 or error in _PATH_FAULTS
        pinned = self.policy.peer or bool(self._rules)
        if self.policy.chain or (pinned and not of_path):
            verification.cause = verification.cause or reason
            self._reject(verification, f"Verification error: {reason}", depth, name)
            return False
        if not verification.passed:  # again, where a server renegotiates: it may do so without end
            verification.findings.append(
                Finding(Outcome.IGNORED, f"Verification error ignored at depth={depth}: {reason}: {name}")
            )
        return True

    def _leaf_fault(
        self, verification: Verification, leaf: x509.Certificate, subject_hash: int
    ) -> _Fault | None:
        if self.policy.peer and not self._pins.holds(leaf, subject_hash):
            reason = "The certificate itself is not in CAfile or CApath"
            return _Fault(_CERT_REJECTED, "certificate not pinned", reason)
        if self._identities and not self._identities.match(leaf):
            reason = "No checkHost, checkIP or checkEmail matches the certificate"
            return _Fault(_HOSTNAME_MISMATCH, "subject mismatch", reason)
        unnamed = self._identity_fault(verification, leaf)
        return _Fault(_CERT_REJECTED, NO_RULE_MATCHES, unnamed) if unnamed is not None else None

    def _identity_fault(self, verification: Verification, leaf: x509.Certificate) -> str | None:
        if not self._rules:
            return None
        passed = self._rules.judge(leaf)
        if passed is None:
            return f"No allow rule matches the peer's identities: {described(leaf)}"
        if not verification.passed:
            verification.rule = str(passed.rule)
            verification.findings.append(Finding(Outcome.ACCEPTED, str(passed)))
        return None

    @staticmethod
    def _reject(verification: Verification, reason: str, depth: int, name: str) -> None:
        verification.findings.append(Finding(Outcome.REJECTED, f"CERT: {reason}"))
        verification.findings.append(Finding(Outcome.REJECTED, f"Rejected by CERT at depth={depth}: {name}"))


def _digest(certificate: x509.Certificate) -> bytes:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
