"""The cookies of DTLS (RFC 6347, 4.2.1): a client proves that it gets what is sent to its address.

They are made of the address and of a secret, and nothing is kept of who was given one.
"""

from __future__ import annotations

import hmac
import os
from typing import Any

from culvert.tls._openssl import ffi, lib

LENGTH = 20
"""Bytes of a cookie. The answer that carries it is shorter than any ClientHello."""

LIFETIME = 60.0
"""Seconds until the secret is another one; cookies of the one before it are taken for as long again."""


class Cookies:
    """The cookies of one server. Times are seconds of any one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._secrets = (os.urandom(32), os.urandom(32))
        self._changed = now

    def turn(self, now: float) -> None:
        """Change the secret where it is time."""
        if now - self._changed >= LIFETIME:
            stale = now - self._changed >= 2 * LIFETIME
            self._secrets = (os.urandom(32), os.urandom(32) if stale else self._secrets[0])
            self._changed = now

    def make(self, whose: bytes) -> bytes:
        """The cookie of an address."""
        return _cookie(self._secrets[0], whose)

    def holds(self, whose: bytes, cookie: bytes) -> bool:
        """Whether this is the cookie of an address."""
        found = [hmac.compare_digest(_cookie(secret, whose), cookie) for secret in self._secrets]
        return any(found)


class CookieCallbacks:
    """Has OpenSSL ask for cookies.

    It asks twice for each client: as the client is greeted, and again as its handshake begins, of the same
    message. That may be much later, with others greeted in between: so the first answer stands.
    """

    def __init__(self, context: Any, cookies: Cookies) -> None:
        """`context` is an SSL_CTX, which must not outlive this."""
        self.whose: bytes | None = None
        """The address of whoever is being greeted; None while nobody is."""
        self._cookies = cookies
        # error=0: whatever goes wrong, no cookie is given and none is taken.
        self._kept = (
            ffi.callback("int(SSL *, unsigned char *, unsigned int *)", self._generate, error=0),
            ffi.callback("int(SSL *, const unsigned char *, unsigned int)", self._verify, error=0),
        )
        lib.SSL_CTX_set_cookie_generate_cb(context, self._kept[0])
        lib.SSL_CTX_set_cookie_verify_cb(context, self._kept[1])

    def _generate(self, _ssl: Any, cookie: Any, length: Any) -> int:
        if self.whose is None:
            return 0
        ffi.memmove(cookie, self._cookies.make(self.whose), LENGTH)
        length[0] = LENGTH
        return 1

    def _verify(self, _ssl: Any, cookie: Any, length: int) -> int:
        if self.whose is None:
            return 1
        return int(self._cookies.holds(self.whose, bytes(ffi.buffer(cookie, length))))


def _cookie(secret: bytes, whose: bytes) -> bytes:
    return hmac.digest(secret, whose, "sha256")[:LENGTH]
