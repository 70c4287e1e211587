"""Pre-shared keys (RFC 4279; RFC 8446, 4.2.11): the file of PSKsecrets, and who uses which key.

A server answers an identity that it does not know with a key that nobody has, made at the same cost as the
look-up of a known one, so that a wrong identity and a wrong key fail alike. That a key was handed to OpenSSL
does not yet say that the peer has it: `proven` does.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from culvert.config.model import Service
from culvert.errors import Location, UnusableFileError
from culvert.tls import credentials
from culvert.tls._openssl import ffi, lib
from culvert.tls.engine import Engine

KEY_MIN = 16
"""Bytes that a key needs: fewer can be guessed from one recorded handshake."""

KEY_LIMIT = 256
"""Most bytes of a key that OpenSSL takes (PSK_MAX_PSK_LEN of its oldest releases in use)."""

IDENTITY_LIMIT = 128
"""Most bytes of an identity (PSK_MAX_IDENTITY_LEN of the same)."""

_HEXADECIMAL = re.compile(rb"([0-9A-Fa-f]{2})+")

Remember = Callable[[Any, str], None]
"""Told the SSL and the identity whose key is being tried."""


class Secrets:
    """The keys of a file by identity, in its order."""

    def __init__(self, keys: dict[bytes, bytes], first: bytes) -> None:
        self._keys = keys
        self._first = first
        self._decoy = os.urandom(32)

    def server_key(self, identity: bytes) -> tuple[bytes, bool]:
        """The key for a client's identity, and whether it is one that the client can have."""
        decoy = hmac.digest(self._decoy, identity, hashlib.sha256)
        key = self._keys.get(identity)
        return (decoy, False) if key is None else (key, True)

    def client_key(self) -> tuple[bytes, bytes]:
        """The identity that a client shows, and its key."""
        return self._first, self._keys[self._first]


def load(service: Service) -> Secrets | None:
    """The service's PSKsecrets; None where it has none. Raises UnusableFileError."""
    path = service.psk_secrets
    if path is None:
        return None
    keys: dict[bytes, bytes] = {}
    for number, line in enumerate(credentials.read(service, "PSKsecrets", path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            identity, key = _parse(line)
            if not (service.client or _is_text(identity)):
                raise ValueError("a server takes identities of printable UTF-8 text")
            if identity in keys:
                raise ValueError("this identity is there already")
        except ValueError as error:
            raise _fault(service, f"{path}:{number}: {error}") from None
        keys[identity] = key
    if not keys:
        raise _fault(service, f"{path} has no pre-shared key: lines IDENTITY:KEY are expected")
    first = next(iter(keys))
    if service.psk_identity is not None:
        first = service.psk_identity.encode()
        if first not in keys:
            where = service.where("PSKidentity")
            raise _fault(service, f"{path} has no key for the identity of 'PSKidentity'", where)
    return Secrets(keys, first)


def openness(service: Service) -> str | None:
    """What to warn of where others than their owner can read the keys; None where there is nothing."""
    if service.psk_secrets is None:
        return None
    try:
        mode = stat.S_IMODE(Path(service.psk_secrets).stat().st_mode)
    except OSError:
        return None  # reading it says so
    if not mode & 0o077:
        return None
    return f"{service.psk_secrets} holds pre-shared keys and is open to more than its owner (mode {mode:04o})"


def _parse(line: bytes) -> tuple[bytes, bytes]:
    identity, colon, written = line.rstrip(b"\r").partition(b":")
    if not colon or not identity:
        raise ValueError("IDENTITY:KEY is expected")
    if len(identity) > IDENTITY_LIMIT:
        raise ValueError(f"an identity has {IDENTITY_LIMIT} bytes at most")
    if b"\0" in identity:  # where OpenSSL would end it
        raise ValueError("an identity has no byte 0")
    key = bytes.fromhex(written.decode("ascii")) if _HEXADECIMAL.fullmatch(written) else written
    if len(key) < KEY_MIN:
        raise ValueError(f"a key has {KEY_MIN} bytes or more, which are {2 * KEY_MIN} hexadecimal digits")
    if len(key) > KEY_LIMIT:
        raise ValueError(f"a key has {KEY_LIMIT} bytes at most")
    return identity, key


def _fault(service: Service, message: str, location: Location | None = None) -> UnusableFileError:
    return UnusableFileError.single(message, location or service.where("PSKsecrets"), service.name)


def accept(context: Any, secrets: Secrets, remember: Remember) -> Any:
    """Let a server's SSL_CTX take these keys. Keep the result for as long as it lives."""

    def callback(ssl: Any, identity: Any, target: Any, room: int) -> int:
        if identity == ffi.NULL:
            return 0
        name: bytes = ffi.string(identity)
        if not _is_text(name):
            return 0  # a session ticket of TLS 1.3 comes this way, too, and none is ours to take
        key, known = secrets.server_key(name)
        if len(key) > room:
            return 0
        if known:
            remember(ssl, name.decode())
        ffi.memmove(target, key, len(key))
        return len(key)

    signature = "unsigned int(SSL *, const char *, unsigned char *, unsigned int)"
    installed = ffi.callback(signature, callback, error=0)
    lib.SSL_CTX_set_psk_server_callback(context, installed)
    return installed


def offer(context: Any, secrets: Secrets, remember: Remember) -> Any:
    """Let a client's SSL_CTX show its identity. Keep the result for as long as it lives."""
    identity, key = secrets.client_key()

    def callback(ssl: Any, _hint: Any, name: Any, name_room: int, target: Any, room: int) -> int:
        if len(identity) >= name_room or len(key) > room:
            return 0
        remember(ssl, identity.decode("utf-8", "backslashreplace"))
        ffi.memmove(name, identity + b"\0", len(identity) + 1)
        ffi.memmove(target, key, len(key))
        return len(key)

    signature = "unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)"
    installed = ffi.callback(signature, callback, error=0)
    lib.SSL_CTX_set_psk_client_callback(context, installed)
    return installed


def proven(engine: Engine) -> bool:
    """Whether the handshake, which is done, was one with a pre-shared key that both sides have.

    A context with pre-shared keys resumes no sessions: a resumption in TLS 1.3 is the use of such a key.
    """
    if engine.version == "TLSv1.3":
        return engine.resumed
    return "PSK" in engine.cipher[0].split("-")


def _is_text(identity: bytes) -> bool:
    try:
        return identity.decode().isprintable()
    except UnicodeDecodeError:
        return False
