"""What one service's connections have in common in TLS: built once, as root, before the workers are forked.

Because a context is built before the fork, all workers share its ticket keys, and a session made on one
resumes on another. Client sessions are kept in each worker for itself (`SessionCache`).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from culvert.config.model import Service
from culvert.errors import ConfigurationError, UnusableFileError
from culvert.tls import credentials as credentials_module
from culvert.tls._openssl import context_pointer, ffi, lib
from culvert.tls.credentials import Credentials, PassPhrases
from culvert.tls.engine import Engine, Scratch
from culvert.tls.failure import TlsError, take_errors
from culvert.tls.names import Identities
from culvert.tls.sessions import SessionCache
from culvert.tls.verify import Finding, Outcome, Pins, Verification, Verifier

# SSL_OP bits that the binding does not name (openssl/ssl.h, stable since 3.0).
_ALLOW_CLIENT_RENEGOTIATION = 1 << 8
_NO_RENEGOTIATION = 1 << 30
_NO_TICKET = 1 << 14

_FILE_OPTIONS = frozenset({"cert", "key", "CAfile"})
"""Options whose values are refused for what stands in a file."""

SERVER_NAME_LIMIT = 255
"""Longest server name in bytes (TLSEXT_MAXLEN_host_name of openssl/tls1.h)."""


class TlsContext:
    """Makes the engines of one service's connections, and knows what was found of their peers."""

    def __init__(self, service: Service, phrases: PassPhrases) -> None:
        """Read every file and set every option. Raises ConfigurationError."""
        self._service = service
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD if service.client else SSL.TLS_SERVER_METHOD)
        self._pointer = context_pointer(self._context)
        self._set_modes()
        self._set_versions_and_options()
        self._set_ciphers()
        self._set_sessions()
        self.credentials = credentials_module.load(service, phrases)
        if self.credentials is not None:
            self._use(self.credentials)
        self._verifications: dict[int, Verification] = {}
        self._verifier = self._build_verifier()
        self.sessions = SessionCache(service.session_cache_size, service.session_cache_timeout)

    def engine(self, scratch: Scratch, server_name: str | None = None) -> Engine:
        """The engine of a new connection. `server_name` is what a client asks for by SNI (RFC 6066, 3)."""
        ssl = lib.SSL_new(self._pointer)
        if ssl == ffi.NULL:
            raise TlsError("cannot make a TLS connection", take_errors())
        if self._verifier is None:
            ssl = ffi.gc(ssl, lib.SSL_free)
        else:
            self._verifications[_address(ssl)] = Verification()
            ssl = ffi.gc(ssl, self._forget)
        if self._service.client:
            lib.SSL_set_connect_state(ssl)
            if server_name:
                _ask_for(ssl, server_name)
        else:
            lib.SSL_set_accept_state(ssl)
        return Engine(ssl, scratch, server=not self._service.client)

    def verification(self, engine: Engine) -> Verification | None:
        """What was found of this engine's peer; None where the service verifies nothing."""
        return self._verifications.get(_address(engine.pointer))

    def prove(self, engine: Engine) -> None:
        """After the handshake: hold that a certificate which must be verified was. Raises TlsError.

        A resumed session stands for the verification of the connection that made it.
        """
        if self._verifier is None or not self._verifier.policy.require or engine.resumed:
            return
        verification = self.verification(engine)
        if verification is None or not verification.passed:
            raise TlsError("peer did not return a certificate")

    def _forget(self, ssl: Any) -> None:
        self._verifications.pop(_address(ssl), None)
        lib.SSL_free(ssl)

    def _set_modes(self) -> None:
        # A write takes all or nothing, and an idle connection gives back its record buffers.
        lib.SSL_CTX_clear_mode(self._pointer, lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        lib.SSL_CTX_set_mode(
            self._pointer, lib.SSL_MODE_RELEASE_BUFFERS | lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        )

    def _set_versions_and_options(self) -> None:
        service = self._service
        self._context.set_min_proto_version(service.version_min)
        self._context.set_max_proto_version(service.version_max)
        wanted = service.options_set
        if service.renegotiation:
            wanted |= 0 if service.client else _ALLOW_CLIENT_RENEGOTIATION
        else:
            wanted |= _NO_RENEGOTIATION
        self._context.set_options(wanted)
        self._clear_options(service.options_clear)

    def _clear_options(self, bits: int) -> None:
        # The binding cannot clear an option; only those that OpenSSL sets by itself could need it.
        stubborn = bits & self._context.set_options(0)
        if stubborn:
            raise ConfigurationError.single(
                f"'options' cannot clear 0x{stubborn:x}, which OpenSSL sets by itself",
                self._service.where("options"),
                self._service.name,
            )

    def _set_ciphers(self) -> None:
        service = self._service
        # The security level goes in through the cipher string: the binding has no call for it.
        ciphers = f"{service.ciphers}:@SECLEVEL={service.security_level}"
        with self._refusing("ciphers", service.ciphers):
            self._context.set_cipher_list(ciphers.encode())
        with self._refusing("ciphersuites", service.ciphersuites):
            _check(lib.SSL_CTX_set_ciphersuites(self._pointer, service.ciphersuites.encode()))
        with self._refusing("curves", service.curves):
            _check(lib.SSL_CTX_set1_curves_list(self._pointer, service.curves.encode()))

    def _set_sessions(self) -> None:
        service = self._service
        if not service.session_resume:
            self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            self._context.set_options(_NO_TICKET)
            return
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF if service.client else SSL.SESS_CACHE_SERVER)
        self._context.set_timeout(service.session_cache_timeout)
        if not service.client:
            # Without it OpenSSL refuses to resume a session whose client showed a certificate.
            self._context.set_session_id(service.name.encode()[:32])

    def _use(self, credentials: Credentials) -> None:
        with self._refusing("cert", self._service.cert or ""):
            self._context.use_certificate(credentials.chain[0])
            for extra in credentials.chain[1:]:
                self._context.add_extra_chain_cert(extra)
        with self._refusing("key", self._service.key or self._service.cert or ""):
            self._context.use_privatekey(credentials.key)
            self._context.check_privatekey()

    def _build_verifier(self) -> Verifier | None:
        service = self._service
        if not service.verify.request:
            self._context.set_verify(SSL.VERIFY_NONE)
            return None
        trusted: tuple[x509.Certificate, ...] = ()
        if service.ca_file is not None:
            data = credentials_module.read(service, "CAfile", service.ca_file)
            trusted = credentials_module.certificates(service, "CAfile", service.ca_file, data)
        if service.ca_file is not None or service.ca_path is not None:
            with self._refusing("CAfile", service.ca_file or service.ca_path or ""):
                self._context.load_verify_locations(service.ca_file, service.ca_path)
        if service.ca_file is not None and not service.client:
            self._context.load_client_ca(str(Path(service.ca_file)).encode())
        identities = self._identities()
        verifier = Verifier(service.verify, identities, Pins(list(trusted), service.ca_path))
        self._install(verifier)
        return verifier

    def _identities(self) -> Identities:
        service = self._service
        try:
            return Identities.of(service.check_host, service.check_ip, service.check_email)
        except UnicodeError as error:
            raise ConfigurationError.single(
                f"'checkHost' has a name that no host can have: {error}",
                service.where("checkHost"),
                service.name,
            ) from None

    def _install(self, verifier: Verifier) -> None:
        index = lib.SSL_get_ex_data_X509_STORE_CTX_idx()

        def callback(ok: int, store: Any) -> int:
            ssl = lib.X509_STORE_CTX_get_ex_data(store, index)
            verification = self._verifications[_address(ssl)]
            try:
                return verifier.judge(verification, ok, store)
            except Exception as error:  # OpenSSL stands above: nothing may be raised through it
                reason = f"CERT: The certificate cannot be judged: {error}"
                verification.findings.append(Finding(Outcome.REJECTED, reason))
                return 0

        # error=0: whatever else goes wrong rejects the certificate.
        self._callback = ffi.callback("int(int, X509_STORE_CTX *)", callback, error=0)
        mode = SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE
        if verifier.policy.require:
            mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        lib.SSL_CTX_set_verify(self._pointer, mode, self._callback)

    @contextlib.contextmanager
    def _refusing(self, option: str, value: str) -> Any:
        """Turn OpenSSL's refusal of a value into the operator's error."""
        try:
            yield
        except SSL.Error as error:
            reasons = [entry[2] for entry in error.args[0]] if error.args else []
            fault = UnusableFileError if option in _FILE_OPTIONS else ConfigurationError
            raise fault.single(
                f"OpenSSL refuses '{option} = {value}': {', '.join(reasons) or 'no reason given'}",
                self._service.where(option, "cert"),
                self._service.name,
            ) from None


def _check(result: int) -> None:
    if result != 1:
        errors = take_errors()
        raise SSL.Error([(error.library, "", error.reason) for error in errors])


def _ask_for(ssl: Any, name: str) -> None:
    """Send a server name (RFC 6066, 3). Raises TlsError for one that cannot be sent."""
    try:
        encoded = name.encode("idna")
    except UnicodeError:
        encoded = b""
    # The binding's call does not say whether OpenSSL took the name.
    if not 0 < len(encoded) <= SERVER_NAME_LIMIT:
        raise TlsError(f"{name!r} cannot be sent as a server name")
    lib.SSL_set_tlsext_host_name(ssl, encoded)


def _address(ssl: Any) -> int:
    return int(ffi.cast("uintptr_t", ssl))
