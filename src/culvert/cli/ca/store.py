"""A certificate authority's folder on disk.

    ca.pem       the CA's certificate, for its peers' CAfile
    ca.key       its private key, perhaps encrypted; no other file here is secret
    index.json   what was issued and revoked (`index`)
    issued/      a copy of each certificate, by serial number
    crl.pem      the last revocation list, for CRLfile
    trust/       ca.pem and crl.pem once more, under the names that CApath and CRLpath look for

Whoever changes the index holds a lock on `lock` meanwhile, and replaces the file as a whole: concurrent runs
wait for each other, and a reader or a crash meets the old index or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import crypto

from culvert.cli.ca.authority import Authority, Revocation, SigningKey, key_pem
from culvert.cli.ca.files import PUBLIC, SECRET, create, replace
from culvert.cli.ca.index import Entry, Index, from_json, serial_text, to_json
from culvert.errors import ConfigurationError, os_reason
from culvert.tls.credentials import PassPhrases

SignList = Callable[[int, tuple[Revocation, ...]], x509.CertificateRevocationList]

_LOCK_LIMIT = 30.0
"""Seconds: a run holds the lock for as long as it writes a few files."""

_LOCK_INTERVAL = 0.02


class Store:
    """The folder of one CA, which exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate_path = folder / "ca.pem"
        self.key_path = folder / "ca.key"
        self.crl_path = folder / "crl.pem"
        self._index_path = folder / "index.json"

    @classmethod
    def create(cls, folder: Path, authority: Authority, pass_phrase: bytes | None) -> Store:
        """Make the folder of a new CA. Raises ConfigurationError where something is there already."""
        store = cls(folder)
        store.assert_free()
        with _system_faults(folder, "make"):
            folder.mkdir(mode=0o755, exist_ok=True)
            with store._locked():
                store.assert_free()
                for name in ("issued", "trust"):
                    (folder / name).mkdir(mode=0o755)
                create(store.key_path, key_pem(authority.key, pass_phrase), SECRET)
                certificate = authority.certificate.public_bytes(Encoding.PEM)
                create(store._trust_path(authority.certificate, "0"), certificate, PUBLIC)
                store._write_index(Index())
                create(store.certificate_path, certificate, PUBLIC)
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """The CA in a folder. Raises ConfigurationError where there is none."""
        store = cls(folder)
        if not store.certificate_path.exists():
            raise ConfigurationError.single(
                f"There is no CA in {folder}",
                hint="make one with `culvert ca init`, or name its folder by --dir",
            )
        return store

    def assert_free(self) -> None:
        """Raise ConfigurationError where the folder holds anything: a new CA overwrites nothing."""
        with _system_faults(self.folder, "use"):
            if not self.folder.exists():
                return
            if any(entry.name != "lock" for entry in self.folder.iterdir()):
                raise ConfigurationError.single(
                    f"{self.folder} is not empty, and is left as it is", hint="name another folder by --dir"
                )

    def certificate(self) -> x509.Certificate:
        """The CA's own certificate. Raises ConfigurationError."""
        return _load_certificate(self.certificate_path)

    def authority(self, phrases: PassPhrases) -> Authority:
        """The CA, ready to sign. Raises ConfigurationError."""
        certificate, key = self.certificate(), _load_key(self.key_path, phrases)
        if _public_bytes(certificate.public_key()) != _public_bytes(key.public_key()):
            raise ConfigurationError.single(
                f"The key in {self.key_path} does not belong to the certificate in {self.certificate_path}"
            )
        return Authority(certificate, key)

    def index(self) -> Index:
        """The index as it stands. Raises ConfigurationError."""
        data = _read(self._index_path)
        try:
            return from_json(data)
        except ValueError as error:
            raise ConfigurationError.single(f"{self._index_path} is damaged: {error}") from None

    @contextlib.contextmanager
    def change(self) -> Iterator[Index]:
        """The index, while no other run may change it; written when the block ends without an error."""
        with self._locked():
            index = self.index()
            yield index
            self._write_index(index)

    def keep_copy(self, certificate: x509.Certificate) -> None:
        """Keep a certificate beside its entry in the index."""
        create(self._issued_path(certificate.serial_number), certificate.public_bytes(Encoding.PEM), PUBLIC)

    def issued(self, entry: Entry) -> x509.Certificate:
        """The copy of a certificate. Raises ConfigurationError."""
        return _load_certificate(self._issued_path(entry.serial))

    def renew_crl(self, sign: SignList) -> x509.CertificateRevocationList:
        """Replace the revocation list by what `sign` makes of the next number and all revocations.

        The number is used up before the list exists: after a crash it is skipped, and never given twice.
        """
        trust_path = self._trust_path(self.certificate(), "r0")
        with self._locked():
            index = self.index()
            index.crl_number += 1
            self._write_index(index)
            crl = sign(index.crl_number, tuple(index.revocations()))
            for path in (self.crl_path, trust_path):
                replace(path, crl.public_bytes(Encoding.PEM), PUBLIC)
        return crl

    def crl(self) -> x509.CertificateRevocationList | None:
        """The last revocation list, if one was ever written. Raises ConfigurationError."""
        if not self.crl_path.exists():
            return None
        try:
            return x509.load_pem_x509_crl(_read(self.crl_path))
        except ValueError as error:
            raise ConfigurationError.single(f"{self.crl_path} is no revocation list: {error}") from None

    def _issued_path(self, serial: int) -> Path:
        return self.folder / "issued" / f"{serial_text(serial)}.pem"

    def _trust_path(self, certificate: x509.Certificate, suffix: str) -> Path:
        """Where OpenSSL looks for what this CA signed (openssl-rehash(1)): no other CA is in that folder."""
        name = crypto.X509.from_cryptography(certificate).subject_name_hash()
        return self.folder / "trust" / f"{name:08x}.{suffix}"

    def _write_index(self, index: Index) -> None:
        replace(self._index_path, to_json(index), PUBLIC)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.folder / "lock"
        with _system_faults(path, "lock"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET)
        try:
            _await_lock(descriptor, path)
            yield
        finally:
            os.close(descriptor)


def _await_lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + _LOCK_LIMIT
    while True:
        try:
            with _system_faults(path, "lock", BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError.single(
                    f"Another run of `culvert ca` has held {path} for {_LOCK_LIMIT:.0f} seconds"
                ) from None
            time.sleep(_LOCK_INTERVAL)


@contextlib.contextmanager
def _system_faults(path: Path, verb: str, but: type[OSError] | None = None) -> Iterator[None]:
    """What the system refuses, in the operator's terms; `but` goes on as it is."""
    try:
        yield
    except OSError as error:
        if but is not None and isinstance(error, but):
            raise
        raise ConfigurationError.single(f"Cannot {verb} {path}: {os_reason(error)}") from None


def _read(path: Path) -> bytes:
    with _system_faults(path, "read"):
        return path.read_bytes()


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise ConfigurationError.single(f"{path} is no certificate: {error}") from None


def _load_key(path: Path, phrases: PassPhrases) -> SigningKey:
    data = _read(path)
    try:
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # how cryptography says that a pass phrase is needed
            phrase = phrases.unlock(str(path), data, lambda phrase: load_pem_private_key(data, phrase))
            key = load_pem_private_key(data, phrase)
    except OSError as error:
        raise ConfigurationError.single(f"The key in {path} stays locked: {error}") from None
    except Exception as error:  # cryptography has a class of its own for each kind of broken key
        raise ConfigurationError.single(f"Cannot use the key in {path}: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError.single(f"The key in {path} is neither ECDSA nor RSA")
    return key


def _public_bytes(key: object) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))  # type: ignore[attr-defined]
