"""Certificates and keys from files (PEM chains, PKCS#12, encrypted keys); a fault names option and line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, pkcs12

from culvert.config.model import Service
from culvert.errors import UnusableFileError, os_reason

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | dsa.DSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

AskPassPhrase = Callable[[str], bytes]
"""Asks the operator, naming the file; raises OSError where there is no terminal."""

FILE_LIMIT = 16 * 1024 * 1024
"""Largest certificate or key file that is read: real ones are below one megabyte, CA bundles included."""

_ATTEMPTS = 3
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_PRIVATE_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a service shows of itself: the leaf first, then what leads from it to a root."""

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey


class PassPhrases:
    """Pass phrases asked for once: a reload finds the key that it already knows, for it has no terminal.

    A key is remembered by the bytes of its file, so a changed file is asked for again.
    """

    def __init__(self, ask: AskPassPhrase) -> None:
        self._ask = ask
        self._known: dict[bytes, bytes] = {}

    def unlock(self, path: str, data: bytes, unlock: Callable[[bytes], object]) -> bytes:
        """The pass phrase for which `unlock` raises no ValueError. Raises OSError where none can be had."""
        if data in self._known:
            return self._known[data]
        for _ in range(_ATTEMPTS):
            phrase = self._ask(path)
            try:
                unlock(phrase)
            except (ValueError, TypeError):  # TypeError: an empty one, where one is needed
                continue
            self._known[data] = phrase
            return phrase
        raise OSError(f"wrong pass phrase {_ATTEMPTS} times")


def load(service: Service, phrases: PassPhrases) -> Credentials | None:
    """The service's `cert` and `key`; None where it has no certificate. Raises UnusableFileError."""
    if service.cert is None:
        return None
    data = read(service, "cert", service.cert)
    if _CERTIFICATE not in data:
        if service.key is not None and service.key != service.cert:
            chain = _load_pkcs12(service, data, phrases).chain
        else:
            return _matching(service, _load_pkcs12(service, data, phrases))
    else:
        chain = certificates(service, "cert", service.cert, data)
    key_path = service.key or service.cert
    key_data = data if key_path == service.cert else read(service, "key", key_path)
    return _matching(service, Credentials(chain, _load_key(service, key_path, key_data, phrases)))


def read(service: Service, option: str, path: str) -> bytes:
    """The bytes of a file that `option` names. Raises UnusableFileError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise _fault(
            service, option, f"Cannot read {path}: {os_reason(error)}", beginning(path, error)
        ) from None
    if len(data) > FILE_LIMIT:
        raise _fault(service, option, f"{path} is larger than {FILE_LIMIT} bytes")
    return data


def beginning(path: str, error: OSError | ValueError) -> str | None:
    """Where a relative path that leads to nothing was followed from; None for another fault."""
    if not isinstance(error, FileNotFoundError) or Path(path).is_absolute():
        return None
    return f"a relative path starts at the folder that Culvert was started in, {Path.cwd()}"


def certificates(service: Service, option: str, path: str, data: bytes) -> tuple[x509.Certificate, ...]:
    """Every certificate of a PEM file, in its order: one at least. Raises UnusableFileError."""
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise _fault(service, option, f"{path} has no certificate that can be read") from None
    return tuple(found)


def _load_key(service: Service, path: str, data: bytes, phrases: PassPhrases) -> PrivateKey:
    match = _PRIVATE_KEY.search(data)
    if match is None:
        raise _fault(
            service, "key", f"{path} holds no private key in PEM form", "set 'key' to the file that does"
        )
    block = match.group(0)
    try:
        try:
            key = load_pem_private_key(block, None)
        except TypeError:  # how cryptography says that a pass phrase is needed
            phrase = phrases.unlock(path, block, lambda phrase: load_pem_private_key(block, phrase))
            key = load_pem_private_key(block, phrase)
    except OSError as error:
        raise _fault(service, "key", f"The private key in {path} stays locked: {error}") from None
    except Exception as error:  # cryptography has a class of its own for each kind of broken key
        raise _fault(service, "key", f"Cannot use the private key in {path}: {error}") from None
    if not isinstance(key, PrivateKey):
        raise _fault(service, "key", f"The private key in {path} is of a kind that TLS does not use")
    return key


def _load_pkcs12(service: Service, data: bytes, phrases: PassPhrases) -> Credentials:
    path = service.cert or ""
    store = _open_pkcs12(service, path, data, phrases)
    if store.key is None or store.cert is None:
        raise _fault(service, "cert", f"The PKCS#12 file {path} lacks a certificate or its private key")
    if not isinstance(store.key, PrivateKey):
        raise _fault(service, "cert", f"The private key in {path} is of a kind that TLS does not use")
    chain = (store.cert.certificate, *(extra.certificate for extra in store.additional_certs))
    return Credentials(chain, store.key)


def _open_pkcs12(
    service: Service, path: str, data: bytes, phrases: PassPhrases
) -> pkcs12.PKCS12KeyAndCertificates:
    for empty in (None, b""):
        try:
            return pkcs12.load_pkcs12(data, empty)
        except ValueError as error:
            reason = error
    if "password" not in str(reason).lower() and "mac" not in str(reason).lower():
        raise _fault(service, "cert", f"{path} is neither a PEM certificate nor a PKCS#12 file: {reason}")
    try:
        phrase = phrases.unlock(path, data, lambda phrase: pkcs12.load_pkcs12(data, phrase))
    except OSError as error:
        raise _fault(service, "cert", f"The PKCS#12 file {path} stays locked: {error}") from None
    return pkcs12.load_pkcs12(data, phrase)


def _matching(service: Service, credentials: Credentials) -> Credentials:
    def public(key: object) -> bytes:
        return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))  # type: ignore[attr-defined]

    key = public(credentials.key.public_key())
    if public(credentials.chain[0].public_key()) != key:
        for place, certificate in enumerate(credentials.chain[1:], start=2):
            if public(certificate.public_key()) == key:
                raise _fault(
                    service,
                    "cert",
                    f"{service.cert} is in the wrong order: its certificate {place} is the service's own",
                    "the service's own certificate first, then each one's issuer",
                )
        raise _fault(
            service,
            "key",
            f"The private key in {service.key or service.cert} does not belong to the first certificate "
            f"in {service.cert}",
        )
    _check_order(service, credentials.chain)
    return credentials


def _check_order(service: Service, chain: Sequence[x509.Certificate]) -> None:
    """Each certificate is issued by the next, for a peer may take them as they come (RFC 5246, 7.4.2)."""
    for place, (certificate, issuer) in enumerate(itertools.pairwise(chain), start=1):
        if certificate.issuer != issuer.subject:
            raise _fault(
                service,
                "cert",
                f"{service.cert} is in the wrong order: its certificate {place + 1} did not issue "
                f"certificate {place}",
                "the service's own certificate first, then each one's issuer, and no other",
            )


def _fault(service: Service, option: str, message: str, hint: str | None = None) -> UnusableFileError:
    return UnusableFileError.single(message, service.where(option, "cert"), service.name, hint)
