"""Which scripts a service runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from culvert.config.model import ProtocolOptions, Service
from culvert.negotiate import cifs, http_connect, ldap, pgsql, socks
from culvert.negotiate.script import (
    Protocol,
    connect_after,
    connect_before,
    nothing_after,
    nothing_before,
)

_CONNECT_FIRST = Protocol(connect_before, nothing_after)
_TLS_FIRST = Protocol(nothing_before, connect_after)

_CLIENTS: Mapping[str, Callable[[ProtocolOptions], Protocol]] = {
    "cifs": lambda _: cifs.CLIENT,
    "connect": http_connect.client,
    "ldap": lambda _: ldap.CLIENT,
    "pgsql": lambda _: pgsql.CLIENT,
    "socks": lambda _: _CONNECT_FIRST,  # the client's own words, which are the server's to read
}
_SERVERS: Mapping[str, Callable[[ProtocolOptions], Protocol]] = {
    "cifs": lambda _: cifs.SERVER,
    "pgsql": lambda _: pgsql.SERVER,
    "socks": lambda _: socks.SERVER,
}


def protocol_of(service: Service) -> Protocol:
    """What the service says before and after its handshakes."""
    options = service.protocol
    if options is None:
        return _CONNECT_FIRST if service.client or service.program_is_client else _TLS_FIRST
    return (_CLIENTS if service.client else _SERVERS)[options.name](options)
