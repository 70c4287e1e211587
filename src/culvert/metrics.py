"""What is counted: one set of numbers for each service in each worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """What a service has done in this worker since it started. `ended` counts by the way of the end,
    `refused` by the reason for which connections were turned away before a handshake, `rejected` by what
    was wrong with peers' certificates, `ocsp` by what was found of them there: good, revoked, or why that
    could not be told.
    """

    accepted: int = 0
    handshakes: int = 0
    handshakes_failed: int = 0
    resumed: int = 0
    redirected: int = 0
    truncated: int = 0
    sent_to_tls: int = 0
    sent_to_plain: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    ocsp: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        ends, found, rejected = _listed(self.ended), _listed(self.ocsp), _listed(self.rejected)
        refused = _listed(self.refused)
        return (
            f"{self.accepted} accepted, {self.handshakes} handshakes ({self.resumed} resumed), "
            f"{self.handshakes_failed} failed, {self.redirected} redirected, {self.truncated} truncated, "
            f"{self.sent_to_tls} byte(s) sent to TLS, {self.sent_to_plain} byte(s) sent to socket"
            + (f"; refused: {refused}" if refused else "")
            + (f"; ended: {ends}" if ends else "")
            + (f"; rejected: {rejected}" if rejected else "")
            + (f"; OCSP: {found}" if found else "")
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
