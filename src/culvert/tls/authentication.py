"""Who the peer of each connection is: judged while its handshake runs, and held to what the service asks.

OpenSSL's callbacks know an SSL by its address; here stands what was found of it. `prove` is the one place
that says whether a connection whose handshake succeeded may go on, and it fails closed.
"""

from __future__ import annotations

from typing import Any, NoReturn

from OpenSSL import SSL

from culvert.config.model import AllowKind, Service
from culvert.tls import psk
from culvert.tls._openssl import ffi, lib, text
from culvert.tls.engine import Engine
from culvert.tls.failure import TlsError
from culvert.tls.psk import Secrets
from culvert.tls.rules import Rules
from culvert.tls.verify import NO_RULE_MATCHES, Finding, Outcome, Verification, Verifier

NO_CERTIFICATE = "peer did not return a certificate"
"""OpenSSL's words, and Culvert's where OpenSSL did not ask for one."""

_NO_CERTIFICATE_CAUSE = "no certificate"


class Authentication:
    """What one service asks of its peers, and what was found of those that it has now."""

    def __init__(
        self, service: Service, rules: Rules, verifier: Verifier | None, secrets: Secrets | None
    ) -> None:
        self._service = service
        self._rules = rules
        self._verifier = verifier
        self._secrets = secrets
        self._found: dict[int, Verification] = {}
        self._callbacks: list[Any] = []

    @property
    def active(self) -> bool:
        return self._verifier is not None or self._secrets is not None

    def install(self, context: Any) -> None:
        """Have an SSL_CTX call back. It must not outlive this object."""
        if self._secrets is not None:
            give = psk.offer if self._service.client else psk.accept
            self._callbacks.append(give(context, self._secrets, self._remember))
        if self._verifier is not None:
            self._install(context, self._verifier)

    def begin(self, ssl: Any) -> Any:
        """Take ownership of a new SSL, and give it back as one that is freed when nobody has it any more."""
        if not self.active:
            return ffi.gc(ssl, lib.SSL_free)
        self._found[_address(ssl)] = Verification()
        return ffi.gc(ssl, self._forget)

    def found(self, engine: Engine) -> Verification | None:
        """What was found of this engine's peer; None where the service asks nothing."""
        found = self._found.get(_address(engine.pointer))
        # OpenSSL calls nobody back about a certificate that did not come.
        if found is not None and engine.failure is not None and engine.failure.reason == NO_CERTIFICATE:
            found.cause = _NO_CERTIFICATE_CAUSE
        return found

    def prove(self, engine: Engine) -> None:
        """After the handshake: hold that the peer is one who may pass. Raises TlsError with the reason.

        A resumed session stands for the verification of the connection that made it.
        """
        if not self.active:
            return
        found = self._found[_address(engine.pointer)]
        if self._secrets is not None and psk.proven(engine):
            self._prove_key(found)
        elif self._secrets is not None and not self._certificates_count():
            _refuse(found, "no pre-shared key", "the peer did not prove that it has a pre-shared key")
        elif self._verifier is not None:
            self._prove_certificate(self._verifier, found, engine)

    def _certificates_count(self) -> bool:
        """Whether a peer without a pre-shared key can show who it is.

        A server that has a certificate beside its keys serves those who have none as well, as stunnel does.
        """
        policy = self._service.verify
        if self._service.client:
            # requireCert alone takes the certificate of anybody in the middle.
            return policy.chain or policy.peer or bool(self._rules)
        return self._service.cert is not None

    def _prove_key(self, found: Verification) -> None:
        identity = found.psk_identity
        if identity is None:
            reason = "the handshake used a pre-shared key that was not given out"
            _refuse(found, "no pre-shared key", reason)
        if self._rules:
            if not self._rules.allows_psk(identity):
                reason = f"no allow rule lets the pre-shared key identity {identity} pass"
                _refuse(found, NO_RULE_MATCHES, reason)
            found.rule = f"{AllowKind.PSK.value} = {identity}"
            line = f"Identity accepted by {AllowKind.PSK.value}: PSK:{identity}"
        else:
            line = f"PSK identity: {identity}"
        found.psk_proven = True
        found.findings.append(Finding(Outcome.ACCEPTED, line))

    def _prove_certificate(self, verifier: Verifier, found: Verification, engine: Engine) -> None:
        if engine.resumed:
            self._prove_resumed(verifier, found, engine)
        elif found.fault:
            raise TlsError(f"certificate verify failed: {_words(found.fault)}")
        elif verifier.policy.require and not found.passed:
            _refuse(found, _NO_CERTIFICATE_CAUSE, NO_CERTIFICATE)

    def _prove_resumed(self, verifier: Verifier, found: Verification, engine: Engine) -> None:
        fault = lib.SSL_get_verify_result(engine.pointer)
        if fault:
            reason = f"certificate verify failed: {_words(fault)} (in the session that is resumed)"
            _refuse(found, _words(fault), reason)
        if not verifier.policy.require:
            return
        certificate = engine.peer_certificate()
        if certificate is None:
            _refuse(found, _NO_CERTIFICATE_CAUSE, NO_CERTIFICATE)
        if not verifier.recall(found, certificate):
            _refuse(found, NO_RULE_MATCHES, "no allow rule lets the peer of the resumed session pass")

    def _remember(self, ssl: Any, identity: str) -> None:
        self._found[_address(ssl)].psk_identity = identity

    def _forget(self, ssl: Any) -> None:
        self._found.pop(_address(ssl), None)
        lib.SSL_free(ssl)

    def _install(self, context: Any, verifier: Verifier) -> None:
        index = lib.SSL_get_ex_data_X509_STORE_CTX_idx()

        def callback(ok: int, store: Any) -> int:
            ssl = lib.X509_STORE_CTX_get_ex_data(store, index)
            found = self._found[_address(ssl)]
            try:
                return verifier.judge(found, ok, store)
            except Exception as error:  # OpenSSL stands above: nothing may be raised through it
                found.cause = "certificate cannot be judged"
                reason = f"CERT: The certificate cannot be judged: {error}"
                found.findings.append(Finding(Outcome.REJECTED, reason))
                return 0

        # error=0: whatever else goes wrong rejects the certificate.
        self._callbacks.append(ffi.callback("int(int, X509_STORE_CTX *)", callback, error=0))
        mode = SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE
        if verifier.policy.require and not verifier.lenient:
            mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        lib.SSL_CTX_set_verify(context, mode, self._callbacks[-1])


def _refuse(found: Verification, cause: str, reason: str) -> NoReturn:
    """Refuse a peer; `cause` is what that is counted by."""
    found.cause = cause
    raise TlsError(reason)


def _words(fault: int) -> str:
    return text(lib.X509_verify_cert_error_string(fault)) or f"error {fault}"


def _address(ssl: Any) -> int:
    return int(ffi.cast("uintptr_t", ssl))
