"""What a connection was, told once at its end: the fields of a JSON line, or a line of text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509

from culvert.config.vpn import IpAddress
from culvert.log import Channel, Fields
from culvert.securing import Securing
from culvert.stream import End
from culvert.tls.names import subject

TOLD_BEFORE = frozenset({"sent_to_tls", "sent_to_socket", "detail"})
"""Fields that a line of text need not have: `Connection closed` and the failure's own line tell them."""

_PLAIN = re.compile(r"[\w.:/@+*-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Summary:
    """A connection at its end. `duration` is in seconds; `detail` says what went wrong, if anything."""

    peer: str
    target: str | None
    end: End
    detail: str | None
    duration: float
    sent: tuple[int, int]
    securing: Securing
    addresses: tuple[IpAddress, ...] = ()
    """The peer's in a VPN."""

    def fields(self) -> Fields:
        """All of it by name; None where there is nothing to tell."""
        return {
            "peer": self.peer,
            "target": self.target,
            "vpn": " ".join(map(str, self.addresses)) or None,
            **_of_tls(self.securing),
            "sent_to_tls": self.sent[0],
            "sent_to_socket": self.sent[1],
            "duration": round(self.duration, 3),
            "reason": self.end.value,
            "detail": self.detail,
        }

    def text(self) -> str:
        """The same as one line, without what other lines say."""
        shown = (
            f"{name}={_value(value)}"
            for name, value in self.fields().items()
            if value is not None and name not in TOLD_BEFORE
        )
        return "Connection summary: " + " ".join(shown)


def tell_end(log: Channel, end: End, peer: str, reason: str | None) -> None:
    """The line of its own that the end of what was carried has, if it has one; `reason` is the relay's."""
    match end:
        case End.NEGOTIATION_FAILED:
            log.error(f"VPN: {peer}: {reason}")
        case End.TLS_FAILED:
            log.error(f"SSL_read: {reason}")
        case End.RESET:
            log.error(reason or "Connection reset")
        case End.IDLE:
            log.info("TIMEOUTidle exceeded: sending reset")
        case End.UNANSWERED:
            log.info(f"{reason or 'TIMEOUTclose exceeded'}: closing")


def _of_tls(securing: Securing) -> Fields:
    """What the handshake has come to, where it was done; an identity is there only if it was proven."""
    if not securing.proven:
        return {"sni": securing.server_name}
    engine = securing.established
    identity, rule = _identity(securing)
    return {
        "sni": securing.server_name,
        "version": engine.version,
        "cipher": engine.cipher[0],
        "group": engine.group,
        "alpn": engine.protocol,
        "resumed": engine.resumed and securing.shared.config.resumes,
        "identity": identity,
        "rule": rule,
    }


def _identity(securing: Securing) -> tuple[str | None, str | None]:
    """Who the peer is, and by which rule it passed: a subject that was verified, or a key that was proven."""
    found = securing.shared.context.verification(securing.established)
    if found is None or securing.redirected:
        return None, None
    if found.psk_proven:
        return f"PSK:{found.psk_identity}", found.rule
    policy = securing.shared.config.verify
    certificate = securing.established.peer_certificate()
    if certificate is None or not (policy.chain or policy.peer or found.rule):
        return None, None
    return subject(x509.load_der_x509_certificate(certificate)), found.rule


def _value(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
