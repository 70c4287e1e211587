"""TLS connections for a program's own use."""

from culvert.client.opening import TlsSession, connect

__all__ = ["TlsSession", "connect"]
