"""Which scripts a service runs."""

from __future__ import annotations

from culvert.config.model import Service
from culvert.negotiate.script import (
    Protocol,
    connect_after,
    connect_before,
    nothing_after,
    nothing_before,
)

_CONNECT_FIRST = Protocol(connect_before, nothing_after)
_TLS_FIRST = Protocol(nothing_before, connect_after)


def protocol_of(service: Service) -> Protocol:
    """What the service says before and after its handshakes."""
    return _CONNECT_FIRST if service.client or service.program_is_client else _TLS_FIRST
