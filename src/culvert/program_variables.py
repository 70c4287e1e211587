"""What a program learns of its connection from its environment (stunnel's manual, `exec`)."""

from __future__ import annotations

from cryptography import x509

from culvert.resolve import InternetAddress
from culvert.tls.engine import Engine
from culvert.tls.names import issuer, subject


def of_client(address: InternetAddress | None, engine: Engine | None) -> dict[str, str]:
    """For one that serves a client: where it is, and who, as far as these are known."""
    variables = {}
    if address is not None:
        variables = {"REMOTE_HOST": str(address[0]), "REMOTE_PORT": str(address[1])}
    certificate = engine.peer_certificate() if engine is not None else None
    if certificate is not None:
        leaf = x509.load_der_x509_certificate(certificate)
        variables["SSL_CLIENT_DN"] = subject(leaf)
        variables["SSL_CLIENT_I_DN"] = issuer(leaf)
    return variables | of_protocol(engine)


def of_protocol(engine: Engine | None) -> dict[str, str]:
    """For one in the client's place: the protocol that ALPN has agreed on, if any."""
    protocol = engine.protocol if engine is not None else None
    return {} if protocol is None else {"SSL_ALPN_PROTOCOL": protocol}
