"""The authority of the tests of TLS."""

from ...tls.conftest import authority

__all__ = ["authority"]
