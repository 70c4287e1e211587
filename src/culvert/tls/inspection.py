"""What `culvert check` finds in the files that a configuration names: keys, certificates, trusted CAs.

The files are read and judged as they are now, without a TLS context and without asking for a pass phrase.
Only the public interface of `cryptography` is used. A finding carries the line of the option that names
the file, so it is shown like any other finding on the configuration.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)

from culvert.config.model import Service
from culvert.errors import Diagnostic, Severity
from culvert.tls import psk
from culvert.tls.credentials import beginning
from culvert.tls.lifetime import MINUTE, SOON, Lifetime

FILE_LIMIT = 16 << 20
"""The largest file that is read; the CA bundle of a distribution has a quarter of a megabyte."""


def inspect(
    service: Service, ca_path: Path | None, crl_path: Path | None, now: datetime.datetime
) -> tuple[Diagnostic, ...]:
    """The findings on the files of one service. Raises nothing.

    `ca_path` and `crl_path` are where the service's CApath and CRLpath lie for this process, which is outside
    of a jail; `now` is an aware time.
    """
    inspector = _Inspector(service, now)
    if service.cert is not None:
        inspector.inspect_identity(service.cert)
    if service.ca_file is not None:
        inspector.inspect_trusted(service.ca_file)
    for option, folder in (("CApath", ca_path), ("CRLpath", crl_path)):
        if folder is not None:
            inspector.inspect_directory(option, folder)
    inspector.inspect_secrets()
    return tuple(inspector.findings)


def lifetimes(service: Service, now: datetime.datetime) -> tuple[Lifetime, ...]:
    """What is left of the service's own certificates: of those it can read; `inspect` tells of others."""
    if service.cert is None:
        return ()
    inspector = _Inspector(service, now)
    file = inspector.read(service.cert, "cert")
    chain = inspector.load_chain(file)[0] if file is not None else ()
    return tuple(Lifetime.of(each.certificate, now) for each in chain)


class _Inspector:
    """One pass over the files of one service."""

    def __init__(self, service: Service, now: datetime.datetime) -> None:
        self._service = service
        self._now = now
        self.findings: list[Diagnostic] = []

    def inspect_identity(self, path: str) -> None:
        """The service's own certificate, its chain, and the private key that goes with them."""
        file = self.read(path, "cert")
        if file is None:
            return
        chain, key = self.load_chain(file)
        separate_key = self._service.key if self._service.key != path else None
        if not _is_pkcs12(file.data):
            self._judge_order(path, chain)
            if separate_key is None:
                key = self._load_key(file)
        if separate_key is not None:
            key_file = self.read(separate_key, "key")
            key = self._load_key(key_file) if key_file is not None else None
        self._judge_validity(path, chain)
        if chain and key is not None:
            self._judge_match(path, chain, key)

    def inspect_trusted(self, path: str) -> None:
        file = self.read(path, "CAfile")
        if file is None:
            return
        trusted = self._load_certificates(file, "CAfile")
        expired = [certificate for certificate in trusted if certificate.not_after < self._now]
        if expired:
            self._warn(
                "CAfile",
                f"{path}: {len(expired)} of its {len(trusted)} trusted certificate(s) expired, "
                f"the first of them {expired[0].subject} on {expired[0].not_after:{MINUTE}}",
            )

    def inspect_secrets(self) -> None:
        opened = psk.openness(self._service)
        if opened is not None:
            self._warn("PSKsecrets", opened, f"chmod go= {self._service.psk_secrets}")

    def inspect_directory(self, option: str, path: Path) -> None:
        try:
            reason = None if stat.S_ISDIR(path.stat().st_mode) else "it is no directory"
        except (OSError, ValueError) as error:
            reason = _reason(error)
        if reason is not None:
            self._warn(option, f"{path} cannot be searched: {reason}")

    def load_chain(self, file: _File) -> tuple[tuple[_Certificate, ...], bytes | None]:
        """The certificates of cert's file and, of a PKCS#12 file, the public half of its key."""
        if _is_pkcs12(file.data):
            return self._load_pkcs12(file)
        return self._load_certificates(file, "cert"), None

    def _load_certificates(self, file: _File, option: str) -> tuple[_Certificate, ...]:
        if b"-----BEGIN " not in file.data:
            hint = "certificates in PEM form are expected, one after the other"
            if file.data.startswith(b"\x30"):
                hint = f"a certificate in DER form becomes PEM by openssl x509 -inform DER -in {file.path}"
            self._error(option, f"{file.path} holds no certificate", hint)
            return ()
        try:
            return _parse_certificates(file.data)
        except ValueError as error:
            reason = _reason(error)
            self._error(option, f"{file.path} holds no certificate or a damaged one: {reason}")
            return ()

    def _load_key(self, file: _File) -> bytes | None:
        """The public half of the file's PEM private key; None where there is none that can be read."""
        if b"PRIVATE KEY-----" not in file.data:
            self._error("key", f"{file.path} holds no private key", "a key in PEM form is expected")
            return None
        self._judge_permissions(file)
        try:
            return _public_bytes(load_pem_private_key(file.data, None).public_key())
        except TypeError:
            self._note("key", f"{file.path}: the private key is encrypted and was not checked")
        except (ValueError, UnsupportedAlgorithm) as error:
            self._error("key", f"{file.path}: the private key cannot be read: {_reason(error)}")
        return None

    def _load_pkcs12(self, file: _File) -> tuple[tuple[_Certificate, ...], bytes | None]:
        self._judge_permissions(file)
        contents = _open_pkcs12(file.data)
        if contents is None:
            self._note("cert", f"{file.path}: the PKCS#12 file is encrypted or damaged and was not checked")
            return (), None
        chain, key = contents
        if key is None or not chain:
            self._error("cert", f"{file.path}: the PKCS#12 file does not hold both a certificate and its key")
        return chain, key

    def _judge_permissions(self, file: _File) -> None:
        if file.mode & 0o077:
            self._warn(
                "key",
                f"{file.path} holds a private key and is open to more than its owner (mode {file.mode:04o})",
                f"chmod go= {file.path}",
            )

    def _judge_validity(self, path: str, chain: Sequence[_Certificate]) -> None:
        for certificate in chain:
            name = f"{path}: the certificate {certificate.subject}"
            end = f"{certificate.not_after:{MINUTE}}"
            if certificate.not_after < self._now:
                self._warn("cert", f"{name} expired on {end}")
            elif certificate.not_after < self._now + SOON:
                days = (certificate.not_after - self._now).days
                self._warn("cert", f"{name} expires on {end}, in {days} day(s)")
            if certificate.not_before > self._now:
                self._warn("cert", f"{name} is not valid before {certificate.not_before:{MINUTE}}")

    def _judge_match(self, path: str, chain: Sequence[_Certificate], key: bytes) -> None:
        if chain[0].public_key is None or chain[0].public_key == key:
            return
        hint = None
        if any(certificate.public_key == key for certificate in chain):
            hint = "the key belongs to a later certificate of the file; the service's own must come first"
        key_path = self._service.key or path
        self._error("key", f"{key_path}: the private key is not that of {chain[0].subject} in {path}", hint)

    def _judge_order(self, path: str, chain: Sequence[_Certificate]) -> None:
        """Each certificate must be issued by the next, for a peer may take the chain as it comes."""
        for position, (certificate, issuer) in enumerate(itertools.pairwise(chain), start=1):
            if not certificate.is_issued_by(issuer):
                self._warn(
                    "cert",
                    f"{path}: certificate {position + 1} ({issuer.subject}) did not issue "
                    f"certificate {position} ({certificate.subject})",
                    "the service's own certificate first, then each one's issuer",
                )

    def read(self, path: str, option: str) -> _File | None:
        """The file; None, and a finding, where it cannot be read or would be used up by reading."""
        try:
            with open(path, "rb", opener=_open_without_waiting) as stream:
                mode = os.fstat(stream.fileno()).st_mode
                data = stream.read(FILE_LIMIT + 1) if stat.S_ISREG(mode) else b""
        except (OSError, ValueError) as error:
            hint = _comment_in(path) or beginning(path, error)
            self._error(option, f"{path} cannot be read: {_reason(error)}", hint)
            return None
        if len(data) > FILE_LIMIT:
            self._error(option, f"{path} is larger than {FILE_LIMIT >> 20} MiB")
            return None
        if not stat.S_ISREG(mode):
            self._note(option, f"{path} is no ordinary file and was not checked")
            return None
        return _File(path, data, stat.S_IMODE(mode))

    def _error(self, option: str, message: str, hint: str | None = None) -> None:
        self._add(Severity.ERROR, option, message, hint)

    def _warn(self, option: str, message: str, hint: str | None = None) -> None:
        self._add(Severity.WARNING, option, message, hint)

    def _note(self, option: str, message: str) -> None:
        self._add(Severity.NOTE, option, message, None)

    def _add(self, severity: Severity, option: str, message: str, hint: str | None) -> None:
        # Without `key` the private key stands in cert's file, so that line is the one to show.
        location = self._service.where(option, "cert") if option == "key" else self._service.where(option)
        self.findings.append(Diagnostic(severity, message, location, self._service.name, hint))


@dataclass(frozen=True, slots=True)
class _File:
    """What was read, and the permission bits at that moment."""

    path: str
    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class _Certificate:
    """The parts of a certificate that are judged; `public_key` is None for an algorithm unknown here."""

    certificate: x509.Certificate
    subject: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    public_key: bytes | None

    @classmethod
    def parse(cls, certificate: x509.Certificate) -> _Certificate:
        """Raises ValueError for contents that cannot be decoded."""
        try:
            public_key = _public_bytes(certificate.public_key())
        except UnsupportedAlgorithm:
            public_key = None
        return cls(
            certificate,
            certificate.subject.rfc4514_string() or "without a subject",
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            public_key,
        )

    def is_issued_by(self, issuer: _Certificate) -> bool:
        try:
            self.certificate.verify_directly_issued_by(issuer.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        except UnsupportedAlgorithm:
            return self.certificate.issuer == issuer.certificate.subject
        return True


def _comment_in(path: str) -> str | None:
    """What to do about a path that looks as if a comment stood behind it."""
    if re.search(r"[ \t][;#]", path) is None:
        return None
    return "a path may hold spaces, and so a comment is a part of it: give the comment a line of its own"


def _open_without_waiting(path: str, flags: int) -> int:
    """An opener for a path that may be a named pipe, whose opening would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _parse_certificates(data: bytes) -> tuple[_Certificate, ...]:
    """Every PEM certificate in `data`. Raises ValueError where there is none or one is damaged."""
    with warnings.catch_warnings():
        # Roots in distributions' bundles have oddities (serial number 0) that are not this operator's.
        warnings.simplefilter("ignore")
        return tuple(_Certificate.parse(found) for found in x509.load_pem_x509_certificates(data))


def _is_pkcs12(data: bytes) -> bool:
    """Whether `data` begins as RFC 7292 (section 4) has it: a DER sequence that opens with the version 3."""
    return data[:1] == b"\x30" and b"\x02\x01\x03" in data[2:9]


def _open_pkcs12(data: bytes) -> tuple[tuple[_Certificate, ...], bytes | None] | None:
    """The chain and the public half of the key in a PKCS#12 file that has no password, or an empty one."""
    for password in (None, b""):
        try:
            key, own, others = pkcs12.load_key_and_certificates(data, password)
            chain = tuple(
                _Certificate.parse(each) for each in ([own, *others] if own is not None else others)
            )
            return chain, _public_bytes(key.public_key()) if key is not None else None
        except (ValueError, UnsupportedAlgorithm):
            continue
    return None


def _public_bytes(key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _reason(error: Exception) -> str:
    """The system's words for a failed call; of a library's, the first sentence without advice and links."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition(". ")[0]
