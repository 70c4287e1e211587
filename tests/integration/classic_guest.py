"""In a guest: the classic VPN put to the proof, by Culvert and by stunnel (see test_classic_vpn.py)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from bench.uml.guest import finish, own_folder, report
from bench.uml.hosts import Daemon, Host, HostError, median
from bench.uml.processes import descending
from bench.vpn.classic import CULVERT, STUNNEL, Line, Way, await_link, await_no_link, linked, route, served
from bench.vpn.networks import FAR, FAR_LAN, NEAR_LAN, Networks

_FILE_SIZE = 1 << 19
_PORT = 7000
_FULL = 1472
"""Bytes in a ping that makes an Ethernet frame a full one."""


def run(parameters: dict[str, Any]) -> None:
    """Report what was seen, for the tests to judge; `certificate` is a path."""
    own_folder("/etc/ppp")
    networks, certificate = Networks(), parameters["certificate"]
    report(what="direct", ping=median(networks.near.ping(FAR, 50)))
    report(what="apart", reachable=_reaches(networks))
    for program in (STUNNEL, CULVERT):
        way = Way(program, certificate, debug=6)
        with served(networks, way) as server:
            with linked(networks, way, server=server):
                route(networks)
                ping = median(networks.near.ping(Line().far_end, 50))
                ports = networks.near.listening()
                report(what="classic", program=program.name, ping=ping, ports=ports, **_proof(networks))
            if program is CULVERT:
                _short(networks, certificate, server)


def _short(networks: Networks, certificate: str, server: Daemon) -> None:
    """The form in which the client service runs pppd by itself. Nothing comes after it."""
    with linked(networks, Way(CULVERT, certificate, short=True, debug=6), server=server):
        route(networks)
        report(what="short", ports=networks.near.listening(), **_proof(networks))
        with networks.near_lan.running("ping", "-i", "0.2", FAR_LAN):
            report(what="again", seconds=_break(networks, server.pid))
        report(what="after", **_proof(networks))
        finish()


def _reaches(networks: Networks) -> bool:
    """Whether one network can be reached from the other, with no tunnel there."""
    try:
        return bool(networks.near_lan.ping(FAR_LAN, 1))
    except HostError:
        return False


def _proof(networks: Networks) -> dict[str, Any]:
    return {
        "there": _answered(networks.near_lan, FAR_LAN),
        "back": _answered(networks.far_lan, NEAR_LAN),
        "full": _answered(networks.near_lan, FAR_LAN, _FULL),
        "file_there": _sent(networks.near_lan, networks.far_lan, FAR_LAN),
        "file_back": _sent(networks.far_lan, networks.near_lan, NEAR_LAN),
    }


def _answered(host: Host, address: str, size: int = 56) -> bool:
    """Whether most pings come back, at one attempt of three.

    Some are lost now and then, with either program: a terminal holds 4 kB, and who is kept from reading it by
    a busy machine loses what comes then.
    """
    for _ in range(3):
        with contextlib.suppress(HostError):  # none came back
            if len(host.ping(address, 5, size=size, interval=0.1)) >= 3:
                return True
    return False


def _sent(source: Host, destination: Host, address: str) -> bool:
    """Whether a file that goes from one network into the other arrives as it was."""
    sent, arrived = Path("/run/sent"), Path("/run/arrived")
    sent.write_bytes(os.urandom(_FILE_SIZE))
    arrived.unlink(missing_ok=True)
    listen = f"TCP-LISTEN:{_PORT},reuseaddr"
    with destination.running("receiver", "socat", "-d", "-d", "-u", listen, f"CREATE:{arrived}") as receiver:
        receiver.await_line("listening on")
        source.run("socat", "-u", f"FILE:{sent}", f"TCP:{address}:{_PORT}")
        receiver.await_end()
    return _sum(sent) == _sum(arrived)


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _break(networks: Networks, server: int) -> float:
    """Kill the server's pppd; the seconds until the link is there again."""
    begun = time.monotonic()
    for process in descending(server):
        if process.name == "pppd":
            os.kill(process.pid, signal.SIGKILL)
    await_no_link(networks)
    await_link(networks)
    route(networks)
    return round(time.monotonic() - begun, 1)
