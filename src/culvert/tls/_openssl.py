"""The one door to OpenSSL: pyOpenSSL's cffi binding, which is private to it.

`Connection.send` and `recv` copy and raise; the calls behind them do neither, and cost half (the figures
are in docs/architecture.md). The price is that the binding may change under us, so the versions of
pyOpenSSL and cryptography are bounded above and every function in use is named here and looked for at
import: a missing one is said by name, at start and not in the middle of a connection.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InternalError
from cryptography.hazmat.bindings._rust import openssl as _rust
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

REQUIRED = (
    "BIO_ADDR_free",
    "BIO_ADDR_new",
    "BIO_free",
    "BIO_new",
    "BIO_read",
    "BIO_s_mem",
    "BIO_write",
    "Cryptography_DTLSv1_get_timeout",
    "DTLS_get_data_mtu",
    "DTLSv1_handle_timeout",
    "DTLSv1_listen",
    "ERR_clear_error",
    "ERR_get_error",
    "ERR_lib_error_string",
    "ERR_reason_error_string",
    "OBJ_nid2sn",
    "OBJ_txt2nid",
    "OPENSSL_malloc",
    "SSL_CIPHER_get_bits",
    "SSL_CIPHER_get_name",
    "SSL_CTX_clear_mode",
    "SSL_CTX_get_keylog_callback",
    "SSL_CTX_set1_curves_list",
    "SSL_CTX_set1_sigalgs_list",
    "SSL_CTX_set_alpn_protos",
    "SSL_CTX_set_alpn_select_cb",
    "SSL_CTX_set_cert_store",
    "SSL_CTX_set_ciphersuites",
    "SSL_CTX_set_cookie_generate_cb",
    "SSL_CTX_set_cookie_verify_cb",
    "SSL_CTX_set_keylog_callback",
    "SSL_CTX_set_mode",
    "SSL_CTX_set_msg_callback",
    "SSL_CTX_set_msg_callback_arg",
    "SSL_CTX_set_psk_client_callback",
    "SSL_CTX_set_psk_server_callback",
    "SSL_CTX_set_tlsext_status_cb",
    "SSL_CTX_set_verify",
    "SSL_SESSION_free",
    "SSL_do_handshake",
    "SSL_free",
    "SSL_get0_alpn_selected",
    "SSL_get0_group_name",
    "SSL_get0_verified_chain",
    "SSL_get1_session",
    "SSL_get_current_cipher",
    "SSL_get_error",
    "SSL_get_ex_data_X509_STORE_CTX_idx",
    "SSL_get_peer_certificate",
    "SSL_get_servername",
    "SSL_get_tlsext_status_ocsp_resp",
    "SSL_get_verify_result",
    "SSL_get_version",
    "SSL_new",
    "SSL_pending",
    "SSL_read",
    "SSL_session_reused",
    "SSL_set_accept_state",
    "SSL_set_bio",
    "SSL_set_connect_state",
    "SSL_set_mtu",
    "SSL_set_session",
    "SSL_set_tlsext_host_name",
    "SSL_set_tlsext_status_ocsp_resp",
    "SSL_set_tlsext_status_type",
    "SSL_shutdown",
    "SSL_version",
    "SSL_write",
    "X509_NAME_hash",
    "X509_STORE_CTX_get_current_cert",
    "X509_STORE_CTX_get_error",
    "X509_STORE_CTX_get_error_depth",
    "X509_STORE_CTX_get_ex_data",
    "X509_STORE_CTX_set_error",
    "X509_STORE_up_ref",
    "X509_free",
    "X509_get_subject_name",
    "X509_verify_cert_error_string",
    "i2d_X509_bio",
    "sk_X509_num",
    "sk_X509_value",
)
"""Every function of the binding that Culvert calls."""


def missing(names: tuple[str, ...] = REQUIRED) -> list[str]:
    """Those of `names` that the installed binding does not have."""
    return [name for name in names if not hasattr(_lib, name)]


_absent = missing()
if _absent:
    raise ImportError(
        f"the installed pyOpenSSL and cryptography lack {', '.join(_absent)}: "
        "install the versions that culvert's metadata asks for"
    )

lib: Any = _lib
ffi: Any = _ffi


def context_pointer(context: SSL.Context) -> Any:
    """The SSL_CTX behind a pyOpenSSL context; it lives as long as the context does."""
    return context._context


def enable_fips() -> str | None:
    """Restrict cryptography to the FIPS provider for good; returns why that cannot be, or None."""
    if _rust.is_fips_enabled():
        return None
    try:
        _rust.enable_fips(_rust._providers)
    except InternalError as error:
        reasons = [entry.reason_text.decode() for entry in error.err_code or ()]
        return ", ".join(reasons) or "no reason given"
    return None


def use_store(context: SSL.Context, store: crypto.X509Store) -> None:
    """Have a context verify by this store from now on, in place of the one that it has."""
    _lib.X509_STORE_up_ref(store._store)
    _lib.SSL_CTX_set_cert_store(context._context, store._store)


def text(pointer: Any) -> str | None:
    """A C string of OpenSSL's as text; None for NULL."""
    if pointer == ffi.NULL:
        return None
    return str(ffi.string(pointer).decode("utf-8", "replace"))


def certificate_der(x509: Any) -> bytes:
    """The DER form of an X509 that OpenSSL still owns."""
    bio = ffi.gc(lib.BIO_new(lib.BIO_s_mem()), lib.BIO_free)
    lib.i2d_X509_bio(bio, x509)
    parts = []
    chunk = ffi.new("char[]", 4096)
    while (count := lib.BIO_read(bio, chunk, 4096)) > 0:
        parts.append(bytes(ffi.buffer(chunk, count)))
    return b"".join(parts)
