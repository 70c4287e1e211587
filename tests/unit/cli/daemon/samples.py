"""Documents as a daemon's endpoint gives them."""

from __future__ import annotations

from typing import Any


def service_document(name: str = "mail", **changes: Any) -> dict[str, Any]:
    """A service with a target and a certificate."""
    return {
        "name": name,
        "client": False,
        "accept": "993",
        "exec": None,
        "protocol": None,
        "live": True,
        "connections": {"open": 2, "total": 10},
        "ended": {"closed": 8},
        "refused": {},
        "handshakes": {"total": 9, "failed": 1, "failures": {"no TLS": 1}},
        "bytes": {"to_tls": 1000, "to_plain": 500},
        "truncated": 0,
        "redirected": 0,
        "targets": [{"target": "127.0.0.1:143", "addresses": 1, "usable": 1, "live": True}],
        "certificates": [{"subject": "CN=mail", "expires": 1800000000, "days": 100}],
        **changes,
    }


def status_document(**changes: Any) -> dict[str, Any]:
    """A daemon that is ready, with one service."""
    return {
        "format": 1,
        "version": "1.0",
        "pid": 4711,
        "time": 1700000100.5,
        "since": 1700000000,
        "ready": True,
        "obstacles": [],
        "draining": False,
        "workers": 2,
        "worker_restarts": 0,
        "reloads": {"succeeded": 1, "failed": 0, "last_failed": False, "last_success": None},
        "services": [service_document()],
        **changes,
    }


def connection_document(ident: str = "17", **changes: Any) -> dict[str, Any]:
    """A connection that is open."""
    return {
        "worker": 100,
        "id": ident,
        "service": "mail",
        "peer": "192.0.2.1:4711",
        "target": "127.0.0.1:143",
        "state": "open",
        "seconds": 12.5,
        "to_tls": 100,
        "to_plain": 50,
        "sni": "mail.example",
        "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "group": "x25519"},
        **changes,
    }


def connections_document(*connections: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The list of these."""
    return {
        "format": 1,
        "complete": True,
        "total": len(connections),
        "connections": [*connections],
        **changes,
    }


def failure_document(**changes: Any) -> dict[str, Any]:
    """A handshake that failed three times."""
    return {
        "time": 1700000050.0,
        "count": 3,
        "service": "mail",
        "peer": "192.0.2.9:1",
        "end": "handshake failed",
        "reason": "the peer does not speak TLS",
        **changes,
    }
