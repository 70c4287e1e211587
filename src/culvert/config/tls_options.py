"""The names that `options` takes, with their bits in OpenSSL 3 and 4 (SSL_CTX_set_options(3)).

The bits are data here because the configuration is read without OpenSSL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from culvert.config.values import BadValue, Form, meant

_BITS = {
    "NO_EXTENDED_MASTER_SECRET": 0,
    "CLEANSE_PLAINTEXT": 1,
    "LEGACY_SERVER_CONNECT": 2,
    "ENABLE_KTLS": 3,
    "TLSEXT_PADDING": 4,
    "SAFARI_ECDHE_ECDSA_BUG": 6,
    "IGNORE_UNEXPECTED_EOF": 7,
    "ALLOW_CLIENT_RENEGOTIATION": 8,
    "DISABLE_TLSEXT_CA_NAMES": 9,
    "ALLOW_NO_DHE_KEX": 10,
    "DONT_INSERT_EMPTY_FRAGMENTS": 11,
    "NO_QUERY_MTU": 12,
    "COOKIE_EXCHANGE": 13,
    "NO_TICKET": 14,
    "CISCO_ANYCONNECT": 15,
    "NO_SESSION_RESUMPTION_ON_RENEGOTIATION": 16,
    "NO_COMPRESSION": 17,
    "ALLOW_UNSAFE_LEGACY_RENEGOTIATION": 18,
    "NO_ENCRYPT_THEN_MAC": 19,
    "ENABLE_MIDDLEBOX_COMPAT": 20,
    "PRIORITIZE_CHACHA": 21,
    "CIPHER_SERVER_PREFERENCE": 22,
    "TLS_ROLLBACK_BUG": 23,
    "NO_ANTI_REPLAY": 24,
    "NO_SSLv3": 25,
    "NO_TLSv1": 26,
    "NO_DTLSv1": 26,
    "NO_TLSv1_2": 27,
    "NO_DTLSv1_2": 27,
    "NO_TLSv1_1": 28,
    "NO_TLSv1_3": 29,
    "NO_RENEGOTIATION": 30,
    "CRYPTOPRO_TLSEXT_BUG": 31,
    "NO_TX_CERTIFICATE_COMPRESSION": 32,
    "NO_RX_CERTIFICATE_COMPRESSION": 33,
    "ENABLE_KTLS_TX_ZEROCOPY_SENDFILE": 34,
    "PREFER_NO_DHE_KEX": 35,
    "LEGACY_EC_POINT_FORMATS": 36,
}

_SETS = {
    "ALL": (
        "CRYPTOPRO_TLSEXT_BUG",
        "DONT_INSERT_EMPTY_FRAGMENTS",
        "TLSEXT_PADDING",
        "SAFARI_ECDHE_ECDSA_BUG",
    ),
    "NO_SSL_MASK": ("NO_SSLv3", "NO_TLSv1", "NO_TLSv1_1", "NO_TLSv1_2", "NO_TLSv1_3"),
    "NO_DTLS_MASK": ("NO_DTLSv1", "NO_DTLSv1_2"),
}

_WITHOUT_EFFECT = (
    "EPHEMERAL_RSA",
    "MICROSOFT_BIG_SSLV3_BUFFER",
    "MICROSOFT_SESS_ID_BUG",
    "MSIE_SSLV2_RSA_PADDING",
    "NETSCAPE_CA_DN_BUG",
    "NETSCAPE_CHALLENGE_BUG",
    "NETSCAPE_DEMO_CIPHER_CHANGE_BUG",
    "NETSCAPE_REUSE_CIPHER_CHANGE_BUG",
    "NO_SSLv2",
    "PKCS1_CHECK_1",
    "PKCS1_CHECK_2",
    "SINGLE_DH_USE",
    "SINGLE_ECDH_USE",
    "SSLEAY_080_CLIENT_DH_BUG",
    "SSLREF2_REUSE_CERT_TYPE_BUG",
    "TLS_BLOCK_PADDING_BUG",
    "TLS_D5_BUG",
)


def _table() -> Mapping[str, int]:
    table = {name: 1 << bit for name, bit in _BITS.items()}
    table |= {name: sum(table[member] for member in members) for name, members in _SETS.items()}
    table |= dict.fromkeys(_WITHOUT_EFFECT, 0)
    return MappingProxyType(dict(sorted(table.items())))


TLS_OPTIONS = _table()
"""Every name with its bits; 0 for what OpenSSL knows by name and no longer heeds."""

_BY_UPPER = {name.upper(): name for name in TLS_OPTIONS}


@dataclass(frozen=True, slots=True)
class TlsOption:
    """One `options` line: these bits are set, or cleared."""

    name: str
    bits: int
    clear: bool


def tls_option(text: str) -> TlsOption:
    """The option of that name, `-` in front of it clearing; raises BadValue."""
    clear = text.startswith("-")
    name = text.removeprefix("-")
    known = _BY_UPPER.get(name.upper())
    if known is None:
        raise BadValue(hint=meant(name.upper().removeprefix("SSL_OP_"), TLS_OPTIONS))
    return TlsOption(known, TLS_OPTIONS[known], clear)


TLS_OPTION = Form("[-]NAME, an OpenSSL option without SSL_OP_", tls_option)
