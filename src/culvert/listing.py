"""What a connection is doing, for those who list the connections that live."""

from __future__ import annotations

from culvert.connection import Connection


def line(connection: Connection, now: float) -> str:
    """One line for the log; `now` is the event loop's time."""
    state = "open" if connection.carrying else "being set up"
    vpn = connection.vpn
    if vpn is not None and vpn.addresses:
        state = f"VPN {', '.join(map(str, vpn.addresses))} over {vpn.name}"
    to_tls, to_plain = connection.sent
    return (
        f"Service [{connection.service}] connection [{connection.ident}] from {connection.peer}: {state}, "
        f"{now - connection.started:.0f} s, {to_tls} byte(s) sent to TLS, {to_plain} byte(s) sent to socket"
    )


def facts(connection: Connection, now: float) -> dict[str, object]:
    """What `line` says and more, for programs. What a peer sent may be among it."""
    engine, tls = connection.engine, None
    if connection.carrying and engine is not None:
        tls = {"version": engine.version, "cipher": engine.cipher[0], "group": engine.group}
    to_tls, to_plain = connection.sent
    vpn = connection.vpn
    return {
        "id": connection.ident,
        "service": connection.service,
        "peer": connection.peer,
        "target": connection.target,
        "state": "open" if connection.carrying else "setup",
        "seconds": round(now - connection.started, 3),
        "to_tls": to_tls,
        "to_plain": to_plain,
        "sni": connection.server_name,
        "tls": tls,
        "vpn": None if vpn is None else {"transport": vpn.name, "addresses": [*map(str, vpn.addresses)]},
    }
