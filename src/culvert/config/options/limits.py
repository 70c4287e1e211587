"""Limits on connections: of the whole daemon in front of the first section, of one service in its section."""

from __future__ import annotations

from culvert.config.options.option import Option, Scope
from culvert.config.values import ACCEPT_RATE, MAX_NUMBER, whole

_CONNECTIONS = whole(1, MAX_NUMBER, "a number of connections")


def _limit(name: str, what: str) -> Option:
    return Option(name, Scope.BOTH, _CONNECTIONS, what, global_field="limits", service_fields=("limits",))


LIMITS = (
    _limit("maxConnections", "most connections at a time, those in their handshake included"),
    _limit("maxConnectionsPerIP", "most connections of one IPv4 address, or IPv6 /64, at a time"),
    _limit("maxHandshakes", "most connections at a time that have not ended their handshake"),
    Option(
        "acceptRate",
        Scope.BOTH,
        ACCEPT_RATE,
        "RATE[:BURST] new connections a second, and at once after a rest",
        global_field="limits",
        service_fields=("limits",),
    ),
)
