"""The names of OpenSSL's options: that their bits are OpenSSL's, and that stunnel knows no more of them."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from culvert.config.tls_options import TLS_OPTIONS, TlsOption, tls_option
from culvert.config.values import BadValue

STUNNEL = """
    ALL ALLOW_CLIENT_RENEGOTIATION ALLOW_NO_DHE_KEX ALLOW_UNSAFE_LEGACY_RENEGOTIATION CIPHER_SERVER_PREFERENCE
    CISCO_ANYCONNECT CLEANSE_PLAINTEXT COOKIE_EXCHANGE CRYPTOPRO_TLSEXT_BUG DISABLE_TLSEXT_CA_NAMES
    DONT_INSERT_EMPTY_FRAGMENTS ENABLE_KTLS ENABLE_MIDDLEBOX_COMPAT EPHEMERAL_RSA IGNORE_UNEXPECTED_EOF
    LEGACY_SERVER_CONNECT MICROSOFT_BIG_SSLV3_BUFFER MICROSOFT_SESS_ID_BUG MSIE_SSLV2_RSA_PADDING
    NETSCAPE_CA_DN_BUG NETSCAPE_CHALLENGE_BUG NETSCAPE_DEMO_CIPHER_CHANGE_BUG NETSCAPE_REUSE_CIPHER_CHANGE_BUG
    NO_ANTI_REPLAY NO_COMPRESSION NO_DTLS_MASK NO_DTLSv1 NO_DTLSv1_2 NO_ENCRYPT_THEN_MAC
    NO_EXTENDED_MASTER_SECRET NO_QUERY_MTU NO_RENEGOTIATION NO_SESSION_RESUMPTION_ON_RENEGOTIATION
    NO_SSL_MASK NO_SSLv2 NO_SSLv3 NO_TICKET NO_TLSv1 NO_TLSv1_1 NO_TLSv1_2 NO_TLSv1_3 PKCS1_CHECK_1
    PKCS1_CHECK_2 PRIORITIZE_CHACHA SAFARI_ECDHE_ECDSA_BUG SINGLE_DH_USE SINGLE_ECDH_USE
    SSLEAY_080_CLIENT_DH_BUG SSLREF2_REUSE_CERT_TYPE_BUG TLS_BLOCK_PADDING_BUG TLS_D5_BUG TLSEXT_PADDING
    TLS_ROLLBACK_BUG
"""


def test_every_name_of_stunnel_is_known() -> None:
    assert set(STUNNEL.split()) <= set(TLS_OPTIONS)


def test_bits_are_those_of_the_library() -> None:
    library = {name: getattr(SSL, f"OP_{name}") for name in TLS_OPTIONS if hasattr(SSL, f"OP_{name}")}
    assert len(library) > 25
    assert {name: TLS_OPTIONS[name] for name in library} == library


def test_option_is_set_or_cleared_in_either_case() -> None:
    assert tls_option("no_ticket") == TlsOption("NO_TICKET", 1 << 14, clear=False)
    assert tls_option("-NO_SSLv3") == TlsOption("NO_SSLv3", 1 << 25, clear=True)


@pytest.mark.parametrize("text", ["", "-", "--NO_TICKET", "NO TICKET", "0x4000"])
def test_refused(text: str) -> None:
    with pytest.raises(BadValue):
        tls_option(text)


def test_prefix_gets_a_hint() -> None:
    with pytest.raises(BadValue) as caught:
        tls_option("SSL_OP_NO_TICKET")
    assert caught.value.hint == 'did you mean "NO_TICKET"?'
