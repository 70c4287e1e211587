"""Which scripts a service runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from culvert.config.model import ProtocolOptions, Service
from culvert.config.protocols import PROXY
from culvert.negotiate import cifs, http_connect, imap, ldap, nntp, pgsql, pop3, smtp, socks
from culvert.negotiate.proxying import announcing
from culvert.negotiate.script import (
    Protocol,
    connecting,
    nothing,
)

_CONNECT_FIRST = Protocol(connecting, nothing)
_TLS_FIRST = Protocol(nothing, connecting)
_NOTHING_BEHIND = Protocol(nothing, nothing)

_CLIENTS: Mapping[str, Callable[[ProtocolOptions], Protocol]] = {
    "cifs": lambda _: cifs.CLIENT,
    "connect": http_connect.client,
    "imap": imap.client,
    "ldap": lambda _: ldap.CLIENT,
    "nntp": nntp.client,
    "pgsql": lambda _: pgsql.CLIENT,
    "pop3": pop3.client,
    "smtp": smtp.client,
    "socks": lambda _: _CONNECT_FIRST,  # the client's own words, which are the server's to read
}
_SERVERS: Mapping[str, Callable[[ProtocolOptions], Protocol]] = {
    "cifs": lambda _: cifs.SERVER,
    "imap": imap.server,
    "pgsql": lambda _: pgsql.SERVER,
    "pop3": pop3.server,
    "smtp": smtp.server,
    "socks": lambda _: socks.SERVER,
}


def protocol_of(service: Service) -> Protocol:
    """What the service says before and after its handshakes."""
    protocol = _spoken(service)
    version = service.proxy.send
    return protocol if version is None else announcing(protocol, version, server=not service.client)


def _spoken(service: Service) -> Protocol:
    options = service.protocol
    if service.vpn is not None and not service.client:
        return _NOTHING_BEHIND
    if options is None or options.name == PROXY:
        return _CONNECT_FIRST if service.client or service.program_is_client else _TLS_FIRST
    return (_CLIENTS if service.client else _SERVERS)[options.name](options)
