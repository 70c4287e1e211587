"""Whom a service trusts and what those have revoked: CAfile, CApath, CRLfile, CRLpath as one OpenSSL store.

Files named outside the jail are read once, as root. CApath and CRLpath are folders for the process that
serves: OpenSSL looks certificates up by subject hash as it needs them, and the CRLs in CRLpath are looked at
again while running, so that a new or replaced one counts without a restart. A CRL file that cannot be read
leaves what that file said before in force. No CRL at all for an issuer is a failed verification.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import crypto

from culvert.config.model import Service
from culvert.errors import UnusableFileError, os_reason
from culvert.tls import credentials
from culvert.tls._openssl import lib

FOLDER_LIMIT = 4096
"""Most CRLs that are taken from CRLpath: more than any directory of CAs has."""

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_HASH_NAME = re.compile(r"[0-9a-f]{8}\.r[0-9]{1,4}")

_Stamp = tuple[int, int, int]

_NO_STAMP: _Stamp = (0, 0, 0)


class Trust:
    """The store of one service. `refresh` says whether it is to be built anew."""

    def __init__(self, service: Service) -> None:
        """Read CAfile and CRLfile. Raises UnusableFileError."""
        self.anchors: tuple[x509.Certificate, ...] = ()
        if service.ca_file is not None:
            data = credentials.read(service, "CAfile", service.ca_file)
            self.anchors = credentials.certificates(service, "CAfile", service.ca_file, data)
        self._service = service
        self._lists = _read_lists(service)
        self._folder = _Folder(Path(service.crl_path)) if service.crl_path is not None else None

    def store(self) -> crypto.X509Store:
        """A new store with what is known now. Raises OpenSSL.crypto.Error."""
        store = crypto.X509Store()
        for anchor in self.anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        if self._service.ca_path is not None:
            store.load_locations(None, self._service.ca_path)
        for revoked in self._all_lists():
            store.add_crl(revoked)
        if self._lists or self._folder is not None:
            store.set_flags(lib.X509_V_FLAG_CRL_CHECK | lib.X509_V_FLAG_CRL_CHECK_ALL)
        return store

    def fingerprint(self) -> bytes:
        """Another one for other CRLs, and the same in every process that has these."""
        return b"".join(revoked.fingerprint(SHA256()) for revoked in self._all_lists())

    def _all_lists(self) -> Iterator[x509.CertificateRevocationList]:
        yield from self._lists
        if self._folder is not None:
            yield from self._folder.lists()

    def refresh(self) -> tuple[bool, list[str]]:
        """Look at CRLpath: whether it changed, and what is wrong with it, said once."""
        return self._folder.refresh() if self._folder is not None else (False, [])


@dataclass(frozen=True, slots=True)
class _File:
    """A CRL file as it was when it was last looked at."""

    stamp: _Stamp
    lists: tuple[x509.CertificateRevocationList, ...]


class _Folder:
    """The CRLs in CRLpath, in files named by their issuer's hash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, _File] = {}
        self._fault: str | None = None

    def lists(self) -> Iterator[x509.CertificateRevocationList]:
        for file in self._files.values():
            yield from file.lists

    def refresh(self) -> tuple[bool, list[str]]:
        try:
            stamps = dict(self._stamps())
        except OSError as error:
            fault = f"CRLpath {self._path} cannot be read: {os_reason(error)}"
            said, self._fault = self._fault, fault
            return False, [] if said == fault else [fault]
        self._fault = None
        return self._take(stamps)

    def _stamps(self) -> Iterator[tuple[str, _Stamp]]:
        with os.scandir(self._path) as entries:
            named = sorted((e.name, e) for e in entries if _HASH_NAME.fullmatch(e.name))
        for name, entry in named[:FOLDER_LIMIT]:
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # it was replaced just now, or is a link to nothing
            except OSError:
                yield name, _NO_STAMP  # reading it says why, and the others count all the same
            else:
                yield name, (status.st_mtime_ns, status.st_size, status.st_ino)

    def _take(self, stamps: dict[str, _Stamp]) -> tuple[bool, list[str]]:
        files: dict[str, _File] = {}
        faults = []
        for name, stamp in stamps.items():
            known = self._files.get(name)
            if known is not None and known.stamp == stamp:
                files[name] = known
                continue
            try:
                lists = parse(_read(self._path / name))
            except (OSError, ValueError) as error:
                reason = os_reason(error) if isinstance(error, OSError) else str(error)
                faults.append(f"The CRL {self._path / name} is not used: {reason}")
                lists = known.lists if known is not None else ()
            files[name] = _File(stamp, lists)
        changed = files != self._files
        self._files = files
        return changed, faults


def parse(data: bytes) -> tuple[x509.CertificateRevocationList, ...]:
    """Every CRL of a PEM file, one at least. Raises ValueError, also for one that OpenSSL would not take."""
    found = tuple(x509.load_pem_x509_crl(block) for block in _CRL.findall(data))
    if not found:
        raise ValueError("it holds no CRL in PEM form")
    trial = crypto.X509Store()
    try:
        for revoked in found:
            trial.add_crl(revoked)
    except crypto.Error as error:
        reasons = ", ".join(entry[2] for entry in error.args[0])
        raise ValueError(f"OpenSSL cannot read it: {reasons}") from None
    return found


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # not to wait for a pipe
        data = file.read(credentials.FILE_LIMIT + 1)
    if len(data) > credentials.FILE_LIMIT:
        raise ValueError(f"it is larger than {credentials.FILE_LIMIT} bytes")
    return data


def _read_lists(service: Service) -> tuple[x509.CertificateRevocationList, ...]:
    if service.crl_file is None:
        return ()
    data = credentials.read(service, "CRLfile", service.crl_file)
    try:
        return parse(data)
    except ValueError as error:
        raise UnusableFileError.single(
            f"{service.crl_file} cannot be used: {error}",
            service.where("CRLfile"),
            service.name,
            "certificate revocation lists in PEM form are expected, one after the other",
        ) from None
