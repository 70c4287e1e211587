"""What one service's connections have in common in TLS: built once, as root, before the workers are forked.

Because a context is built before the fork, all workers share its ticket keys, and a session made on one
resumes on another. Client sessions are kept in each worker for itself (`SessionCache`).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from culvert.config.model import Service
from culvert.errors import ConfigurationError, UnusableFileError
from culvert.tls import alpn, key_log, psk, stapling
from culvert.tls import credentials as credentials_module
from culvert.tls._openssl import context_pointer, ffi, lib, use_store
from culvert.tls.authentication import Authentication
from culvert.tls.credentials import Credentials, PassPhrases
from culvert.tls.engine import Engine, Scratch
from culvert.tls.failure import TlsError, take_errors
from culvert.tls.names import Identities, algorithms
from culvert.tls.rules import Rules
from culvert.tls.sessions import SessionCache
from culvert.tls.traced import SecretTaps, Tap, TracedEngine, listening
from culvert.tls.trust import Trust
from culvert.tls.verify import Pins, Verification, Verifier

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
        self._context = SSL.Context(self._method())
        self._pointer = context_pointer(self._context)
        self._set_modes()
        self._set_versions()
        self._set_options()
        self._set_ciphers()
        self._set_sessions()
        self._negotiate_protocols()
        self.credentials = credentials_module.load(service, phrases)
        self.key_algorithm: str | None = None
        self.signature_algorithm: str | None = None
        if self.credentials is not None:
            self._use(self.credentials)
            self.key_algorithm, self.signature_algorithm = algorithms(self.credentials.chain[0])
        self.staple = None if service.client else stapling.Staple(self._pointer)
        self._trust = Trust(service)
        self._born, self._age = time.monotonic(), 0
        self._bind_sessions()
        rules = Rules(service.allow)
        verifier = self._build_verifier(self._trust, rules) if service.verify.request else None
        self._authentication = Authentication(service, rules, verifier, psk.load(service))
        self._authentication.install(self._pointer)
        self._key_log = key_log.write_keys(self._pointer, service)
        self._secret_taps = SecretTaps(self._pointer)

    def engine(self, scratch: Scratch, server_name: str | None = None, tap: Tap | None = None) -> Engine:
        """The engine of a new connection. `server_name` is what a client asks for by SNI (RFC 6066, 3); `tap`
        is who is to see all that passes.
        """
        server = not self._service.client
        if tap is None:
            return Engine(self._new_connection(server_name), scratch, server=server)
        with listening(self._pointer, tap) as handle:
            ssl = self._new_connection(server_name)
        engine = TracedEngine(ssl, scratch, tap, handle, server=server)
        self._secret_taps.add(engine, tap)
        return engine

    def _new_connection(self, server_name: str | None) -> Any:
        ssl = lib.SSL_new(self._pointer)
        if ssl == ffi.NULL:
            raise TlsError("cannot make a TLS connection", take_errors())
        ssl = self._authentication.begin(ssl)
        if self._service.client:
            lib.SSL_set_connect_state(ssl)
            if asks_for_staple(self._service):
                stapling.request(ssl)
            if server_name:
                _ask_for(ssl, server_name)
        else:
            lib.SSL_set_accept_state(ssl)
        return ssl

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """What CAfile holds."""
        return self._trust.anchors

    def verification(self, engine: Engine) -> Verification | None:
        """What was found of this engine's peer; None where the service verifies nothing."""
        return self._authentication.found(engine)

    def prove(self, engine: Engine) -> None:
        """After the handshake: hold that the peer is one who may pass. Raises TlsError with the reason."""
        self._authentication.prove(engine)

    def refresh(self, now: float) -> list[str]:
        """Take the CRLs in CRLpath as they are now; returns what is wrong with them, each thing once.

        `now` is of the monotonic clock. The engines that are made after it go by these CRLs; where sessions
        must not live on, they resume none of before, and `sessions` is another cache.
        """
        changed, faults = self._trust.refresh()
        if changed:
            use_store(self._context, self._trust.store())
        age = self._age_at(now)
        if changed or age != self._age:
            self._age = age
            self._bind_sessions()
        return faults

    def _method(self) -> int:
        return SSL.TLS_CLIENT_METHOD if self._service.client else SSL.TLS_SERVER_METHOD

    def _set_modes(self) -> None:
        # A write takes all or nothing, and an idle connection gives back its record buffers.
        lib.SSL_CTX_clear_mode(self._pointer, lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        lib.SSL_CTX_set_mode(
            self._pointer, lib.SSL_MODE_RELEASE_BUFFERS | lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        )

    def _set_versions(self) -> None:
        self._context.set_min_proto_version(self._service.version_min)
        self._context.set_max_proto_version(self._service.version_max)

    def _set_options(self) -> None:
        service = self._service
        # A server's order of ciphers counts, so that a client cannot choose the weakest: scanners ask for it.
        wanted = service.options_set | (0 if service.client else SSL.OP_CIPHER_SERVER_PREFERENCE)
        wanted &= ~service.options_clear
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
        if service.signature_algorithms is not None:
            with self._refusing("config", service.signature_algorithms):
                algorithms = service.signature_algorithms.encode()
                _check(lib.SSL_CTX_set1_sigalgs_list(self._pointer, algorithms))

    def _negotiate_protocols(self) -> None:
        protocols = self._service.alpn
        if protocols and self._service.client:
            alpn.offer(self._pointer, protocols)
        elif protocols:
            self._alpn_callback = alpn.answer(self._pointer, protocols)

    def _set_sessions(self) -> None:
        service = self._service
        if not service.resumes:
            self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            self._context.set_options(_NO_TICKET)
            return
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF if service.client else SSL.SESS_CACHE_SERVER)
        self._context.set_timeout(service.session_cache_timeout)
        if not service.client and service.ocsp.asks and (service.verify.chain or service.verify.peer):
            # A ticket could go to a worker that has never seen who issued the client's certificate.
            self._context.set_options(_NO_TICKET)

    def _age_at(self, now: float) -> int:
        """How often sessionCacheTimeout has run out, where peers are verified. In TLS 1.3 each resumption
        brings a session with a life of its own: peers could go on long after their certificates have expired.
        """
        if not self._service.verify.request:
            return 0
        return int(max(now - self._born, 0) // max(self._service.session_cache_timeout, 1))

    def _bind_sessions(self) -> None:
        """Resume none that was made under other CRLs or at another age: its peer is to be verified anew."""
        service = self._service
        self.sessions = SessionCache(service.session_cache_size, service.session_cache_timeout)
        if not service.client:
            # Without any id OpenSSL refuses to resume a session whose client showed a certificate, and in TLS
            # 1.3 every pre-shared key where certificates are asked for.
            bound = f"{service.name}\0{self._age}".encode() + self._trust.fingerprint()
            self._context.set_session_id(hashlib.sha256(bound).digest())

    def _use(self, credentials: Credentials) -> None:
        with self._refusing("cert", self._service.cert or ""):
            self._context.use_certificate(credentials.chain[0])
            for extra in credentials.chain[1:]:
                self._context.add_extra_chain_cert(extra)
        with self._refusing("key", self._service.key or self._service.cert or ""):
            self._context.use_privatekey(credentials.key)
            self._context.check_privatekey()

    def _build_verifier(self, trust: Trust, rules: Rules) -> Verifier:
        service = self._service
        with self._refusing("CAfile", service.ca_file or service.ca_path or ""):
            use_store(self._context, trust.store())
        if service.ca_file is not None and not service.client:
            self._context.load_client_ca(str(Path(service.ca_file)).encode())
        pins = Pins(list(trust.anchors), service.ca_path)
        lenient = service.redirect is not None
        return Verifier(service.verify, self._identities(), pins, rules, lenient=lenient)

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

    @contextlib.contextmanager
    def _refusing(self, option: str, value: str) -> Any:
        """Turn OpenSSL's refusal of a value into the operator's error."""
        try:
            yield
        except (SSL.Error, crypto.Error) as error:
            reasons = [entry[2] for entry in error.args[0]] if error.args else []
            fault = UnusableFileError if option in _FILE_OPTIONS else ConfigurationError
            raise fault.single(
                f"OpenSSL refuses '{option} = {value}': {', '.join(reasons) or 'no reason given'}",
                self._service.where(option, "cert"),
                self._service.name,
            ) from None


def asks_for_staple(service: Service) -> bool:
    """Whether a client wants its server's OCSP answer in the handshake.

    Not where a nonce is to prove that an answer is fresh: a staple has none.
    """
    policy = service.ocsp
    verified = service.verify.chain or service.verify.peer
    return service.client and verified and not (policy.nonce and policy.asks)


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
