"""What is left of a certificate, in numbers and in words."""

from __future__ import annotations

import datetime

import pytest

from culvert.tls.lifetime import Lifetime

from ..identities import NOW, issue


@pytest.mark.parametrize(
    ("left", "days", "ends_soon", "words"),
    [
        (400.5, 400, False, "expires in 400 days"),
        (30, 30, False, "expires in 30 days"),
        (29.9, 29, True, "expires in 29 days"),
        (1, 1, True, "expires in 1 day"),
        (0.5, 0, True, "expires in 0 days"),
        (-0.5, -1, True, "expired 0 days ago"),
        (-1.5, -2, True, "expired 1 day ago"),
        (-3.5, -4, True, "expired 3 days ago"),
    ],
)
def test_days(left: float, days: int, ends_soon: bool, words: str) -> None:
    certificate = issue("leaf", starts_in=-100, ends_in=left).certificate
    lifetime = Lifetime.of(certificate, NOW)
    assert (lifetime.subject, lifetime.days, lifetime.ends_soon) == ("CN=leaf", days, ends_soon)
    end = NOW + datetime.timedelta(days=left)
    assert str(lifetime) == f"the certificate CN=leaf {words} ({end:%Y-%m-%d %H:%M UTC})"
