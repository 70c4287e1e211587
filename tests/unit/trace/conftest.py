"""The authority of the tests of TLS, for these too."""

from __future__ import annotations

from ..tls.conftest import authority

__all__ = ["authority"]
