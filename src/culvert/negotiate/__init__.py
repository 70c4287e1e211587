"""The protocols spoken around a TLS handshake, as scripts without I/O (see `script`)."""

from culvert.negotiate.protocols import protocol_of

__all__ = ["protocol_of"]
