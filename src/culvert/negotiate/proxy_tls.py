"""What a PROXY header of version 2 tells of the client's TLS (HAProxy's specification, 2.2.1 to 2.2.6)."""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

from culvert.negotiate.proxy_header import tlv
from culvert.negotiate.script import Secured

VALUE_LIMIT = 1024
"""Longest text that is sent on, in bytes. A common name has 64 characters (RFC 5280, A.1), others fewer."""

_ALPN = 0x01
_AUTHORITY = 0x02
_SSL = 0x20
_SSL_VERSION = 0x21
_SSL_CN = 0x22
_SSL_CIPHER = 0x23
_SSL_SIGNATURE = 0x24
_SSL_KEY = 0x25

_CLIENT_SSL = 0x01
_CLIENT_CERT_CONN = 0x02
_CLIENT_CERT_SESS = 0x04


def tls_tlvs(secured: Secured) -> bytes:
    """The fields of a client who came through this handshake."""
    return b"".join((_text(_ALPN, secured.protocol), _text(_AUTHORITY, secured.server_name), _ssl(secured)))


def _ssl(secured: Secured) -> bytes:
    flags = _CLIENT_SSL
    if secured.certificate is not None:
        flags |= _CLIENT_CERT_SESS if secured.resumed else _CLIENT_CERT_CONN | _CLIENT_CERT_SESS
    # Zero says that there is a certificate and that it is good.
    value = bytes((flags,)) + (0 if secured.verified else 1).to_bytes(4, "big")
    value += _text(_SSL_VERSION, secured.version)
    value += _text(_SSL_CIPHER, secured.cipher)
    if secured.certificate is not None:
        value += _text(_SSL_CN, common_name(secured.certificate))
    value += _text(_SSL_SIGNATURE, secured.signature_algorithm)
    value += _text(_SSL_KEY, secured.key_algorithm)
    return tlv(_SSL, value)


def _text(kind: int, text: str | None) -> bytes:
    """A field, or nothing: half a name could be another's, and so could one cut off at a NUL."""
    data = text.encode() if text else b""
    if not data or len(data) > VALUE_LIMIT or not (text or "").isprintable():
        return b""
    return tlv(kind, data)


def common_name(certificate: bytes) -> str | None:
    """The subject's one common name; None where it has none or several, or cannot be read."""
    try:
        names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(
            NameOID.COMMON_NAME
        )
    except ValueError:
        return None
    return names[0].value if len(names) == 1 and isinstance(names[0].value, str) else None
