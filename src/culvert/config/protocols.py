"""The values of `protocol`, and which end of a tunnel speaks what."""

from __future__ import annotations

CLIENT = "client"
SERVER = "server"

PROXY = "proxy"
"""The protocol that says nothing but a PROXY header, which goes together with every other way to connect."""

SIDES: dict[str, frozenset[str]] = {
    "capwin": frozenset({CLIENT, SERVER}),
    "capwinctrl": frozenset({CLIENT, SERVER}),
    "cifs": frozenset({CLIENT, SERVER}),
    "connect": frozenset({CLIENT}),
    "imap": frozenset({CLIENT, SERVER}),
    "ldap": frozenset({CLIENT}),
    "nntp": frozenset({CLIENT}),
    "pgsql": frozenset({CLIENT, SERVER}),
    "pop3": frozenset({CLIENT, SERVER}),
    PROXY: frozenset({SERVER}),
    "smtp": frozenset({CLIENT, SERVER}),
    "socks": frozenset({CLIENT, SERVER}),
}
"""At which end of a tunnel each protocol can stand."""

_UNPUBLISHED = "how its application speaks is published nowhere"

UNSUPPORTED: dict[str, str] = {"capwin": _UNPUBLISHED, "capwinctrl": _UNPUBLISHED}
"""Protocols of stunnel's that this version cannot speak, with the reason."""

CLIENT_CHOOSES_TARGET = "socks"
"""The protocol of which the server needs no target of its own."""

POSTGRESQL_ALPN = "postgresql"
"""The name that PostgreSQL's clients and servers negotiate by ALPN."""

AUTHENTICATION: dict[str, tuple[str, ...]] = {"connect": ("basic", "ntlm"), "smtp": ("plain", "login")}
"""How a client can prove itself, by protocol; the first is the usual one."""

CONNECTING_FIRST = frozenset({"smtp", "pop3", "imap"})
"""Servers of these connect to their target before TLS, so that a client cannot be redirected after it."""

INSIDE_TLS = frozenset({"proxy", "socks"})
"""Servers of these say nothing before TLS. The others do, to a client that has not named a server yet."""
