"""OCSP answers inside the handshake (RFC 6066, 8): asked for by a client, given out by a server.

A server's context gets its callback before the fork. What it gives out is put into `Staple` afterwards, in
each worker for itself.
"""

from __future__ import annotations

from typing import Any

from cryptography import x509

from culvert.tls._openssl import certificate_der, ffi, lib
from culvert.tls.engine import Engine

_OK = 0
_NOACK = 3  # SSL_TLSEXT_ERR_NOACK: go on without an answer


class Staple:
    """What one server context gives to the clients that ask: `der`, an OCSP answer, or nothing."""

    def __init__(self, context: Any) -> None:
        """`context` is the SSL_CTX, which must not outlive this object."""
        self.der: bytes | None = None
        # error: an exception in the callback leaves the handshake without a staple.
        self._callback = ffi.callback("int(SSL *, void *)", self._give, error=_NOACK)
        lib.SSL_CTX_set_tlsext_status_cb(context, self._callback)

    def _give(self, ssl: Any, _: Any) -> int:
        der = self.der
        if der is None:
            return _NOACK
        # OpenSSL takes this memory as its own, and frees it with the connection.
        memory = lib.OPENSSL_malloc(len(der))
        if memory == ffi.NULL:
            return _NOACK
        ffi.memmove(memory, der, len(der))
        lib.SSL_set_tlsext_status_ocsp_resp(ssl, ffi.cast("unsigned char *", memory), len(der))
        return _OK


def request(ssl: Any) -> None:
    """Have a client ask for a staple in the handshake that is to begin."""
    lib.SSL_set_tlsext_status_type(ssl, lib.TLSEXT_STATUSTYPE_ocsp)


def received(engine: Engine) -> bytes | None:
    """The staple that came with a client's handshake; none comes with a resumed session."""
    answer = ffi.new("unsigned char **")
    length = lib.SSL_get_tlsext_status_ocsp_resp(engine.pointer, answer)
    if length <= 0 or answer[0] == ffi.NULL:
        return None
    return bytes(ffi.buffer(answer[0], length))


def verified_chain(engine: Engine) -> list[x509.Certificate]:
    """The certificates above the peer's own by which it was verified; none where a session was resumed.

    They are to be trusted only where every fault of the chain ended the handshake.
    """
    stack = lib.SSL_get0_verified_chain(engine.pointer)
    if stack == ffi.NULL:
        return []
    return [
        x509.load_der_x509_certificate(certificate_der(lib.sk_X509_value(stack, index)))
        for index in range(1, lib.sk_X509_num(stack))
    ]
