"""How long a certificate is still valid, in the words of the log and of `culvert check`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509

SOON = datetime.timedelta(days=30)
"""What is left of a certificate when its end is worth a warning: renewals come earlier than that."""

MINUTE = "%Y-%m-%d %H:%M UTC"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What is left of a certificate at a moment: `days` are whole ones, negative once it has expired."""

    subject: str
    expires: datetime.datetime
    days: int
    ends_soon: bool
    """It ends within 30 days, or has ended."""

    @classmethod
    def of(cls, certificate: x509.Certificate, now: datetime.datetime) -> Lifetime:
        """`now` is an aware time."""
        left = certificate.not_valid_after_utc - now
        try:
            subject = certificate.subject.rfc4514_string() or "without a subject"
        except ValueError:
            subject = "with a subject that cannot be read"
        return cls(
            subject,
            certificate.not_valid_after_utc,
            left.days,
            left < SOON,
        )

    def __str__(self) -> str:
        count = self.days if self.days >= 0 else -self.days - 1
        number = f"{count} day" if count == 1 else f"{count} days"
        fate = f"expires in {number}" if self.days >= 0 else f"expired {number} ago"
        return f"the certificate {self.subject} {fate} ({self.expires:{MINUTE}})"
