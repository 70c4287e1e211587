"""`python -m bench.vpn.loss`, from the repository's top folder: one TCP flow through a VPN over a lossy link.

Culvert's own VPN over TLS and over DTLS between the same two hosts, on one kernel (user-mode Linux with
sch_netem), measured by turns: TCP inside TCP has every loss repaired twice, and the outer one makes the
inner one wait. Exit status 0 when everything was measured, 1 when something failed, 2 when the bench could
not begin.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine, peers
from bench.errors import MeasureError
from bench.uml.guest import finish, report
from bench.uml.hosts import Daemon, Host, HostError, eventually, link
from bench.uml.machine import boot, missing
from bench.vpn.networks import MODULES

TRANSPORTS = ("tls", "dtls")

PROGRAMS = ("iperf3", "tc", "ss", "sysctl")
NEEDED = (*MODULES, "tun", "sch_netem")
"""Modules of the guest's kernel."""

NEAR, FAR = "192.0.2.1", "198.51.100.1"

_FLOW_PORT = 5201
_DAEMON = "foreground = yes\nsyslog = no\npid =\ndebug = 6\n"
_SERVER = """\
[{transport}]
accept = {far}:{port}
cert = {certificate}
CAfile = {certificate}
verifyPeer = yes
transport = {transport}
tun = {transport}0
tunAddress = {server}
tunPeer = {client}
"""
_CLIENT = """\
[{transport}]
client = yes
connect = {far}:{port}
cert = {certificate}
CAfile = {certificate}
verifyPeer = yes
transport = {transport}
tun = {transport}0
"""
_PLACES = {"tls": (4430, "10.8.0.1", "10.8.0.2"), "dtls": (4440, "10.9.0.1", "10.9.0.2")}
_ONE_FLOW = 30.0
"""Seconds for one flow beside its own."""


def run(parameters: dict[str, Any]) -> None:
    """In the guest: report a record for each flow of `rounds` rounds over the `roads`, `seconds` long, with
    `delay` in milliseconds and `loss` in per cent each way, and the path of a `certificate`. The flows of a
    round go by turns, or `together`.
    """
    path = _Path()
    _start_tunnels(path, parameters["certificate"])
    for interface in ("near", "far"):
        path.router.impair(interface, delay=parameters["delay"], loss=parameters["loss"])
    roads: list[str] = parameters["roads"]
    for number in range(1, parameters["rounds"] + 1):
        for flows in [roads] if parameters["together"] else [[road] for road in roads]:
            for road, rate in _rates(path, flows, parameters["seconds"]).items():
                report(round=number, road=road, rate=rate)
    finish()


class _Path:
    """Two hosts and a router between them, where packets are delayed and lost.

    The kernel hands a host's own packets to netem up to 64 kB at a time, TCP's and UDP's alike, and one draw
    would decide on all of that. So they are cut as they leave the host, and lost one by one in the router.
    """

    def __init__(self) -> None:
        self.near, self.router, self.far = Host("near"), Host("router"), Host("far")
        link((self.near, "eth0", f"{NEAR}/24"), (self.router, "near", "192.0.2.254/24"))
        link((self.far, "eth0", f"{FAR}/24"), (self.router, "far", "198.51.100.254/24"))
        self.near.route("default", "via", "192.0.2.254")
        self.far.route("default", "via", "198.51.100.254")
        for host in (self.near, self.far):
            host.run("ip", "link", "set", "eth0", "gso_max_segs", "1")


def _start_tunnels(path: _Path, certificate: str) -> None:
    """A daemon at each end has both VPNs, each in a process of its own."""
    words = [
        {
            "far": FAR,
            "port": port,
            "certificate": certificate,
            "transport": transport,
            "server": server,
            "client": client,
        }
        for transport, (port, server, client) in _PLACES.items()
    ]
    far = _started(path.far, "".join(_SERVER.format(**one) for one in words))
    far.await_line("Accepting new connections")
    near = _started(path.near, "".join(_CLIENT.format(**one) for one in words))
    for transport in TRANSPORTS:
        near.await_line(f"VPN: this end has .* over {transport.upper()} ")


def _started(host: Host, sections: str) -> Daemon:
    file = Path("/run", f"{host.name}.conf")
    file.write_text(_DAEMON + sections)
    return host.start("culvert", sys.executable, "-m", "culvert", "run", str(file))


def _rates(path: _Path, roads: Sequence[str], seconds: float) -> dict[str, float]:
    """What one TCP flow on each of these roads carries at the same time, in MB/s."""
    ports = {road: _FLOW_PORT + index for index, road in enumerate(roads)}
    servers = [_iperf(path.far, port, "--server", "--one-off") for port in ports.values()]
    try:
        eventually(lambda: {*ports.values()} <= {*path.far.listening()}, "iperf3 listening")
        words = ("--time", str(seconds), "--json", "--client")
        clients = {
            road: _iperf(path.near, port, *words, _PLACES[road][1] if road in _PLACES else FAR)
            for road, port in ports.items()
        }
        for client in clients.values():
            client.await_end(seconds + 60)
    finally:
        for server in servers:
            server.end()
    return {road: _received(client.text()) for road, client in clients.items()}


def _iperf(host: Host, port: int, *words: str) -> Daemon:
    return host.start(f"iperf3-{port}", "iperf3", "--port", str(port), *words)


def _received(outcome: str) -> float:
    """What iperf3's client says that has arrived, in MB/s. Raises HostError."""
    try:
        return float(json.loads(outcome)["end"]["sum_received"]["bits_per_second"]) / 8e6
    except (ValueError, KeyError):
        raise HostError(f"iperf3 failed:\n{outcome[-2000:]}") from None


def main(words: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    arguments = _arguments(words)
    lacking = missing(PROGRAMS)
    if lacking:
        print(f"bench.vpn.loss: not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="culvert-bench-") as folder:
        certificate = Path(folder, "certificate.pem")
        peers.make_certificate(certificate)
        parameters = {
            "certificate": str(certificate),
            "roads": ["direct", *TRANSPORTS],
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "delay": arguments.delay,
            "loss": arguments.loss,
            "together": False,
        }
        limit = 60 + arguments.rounds * 3 * (arguments.seconds + _ONE_FLOW)
        try:
            found = boot("bench.vpn.loss", parameters, seconds=limit, modules=NEEDED)
        except MeasureError as failure:
            print(f"bench.vpn.loss: {failure}", file=sys.stderr)
            return 1
    print(_as_text(found, arguments))
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.vpn.loss", description="A VPN over a lossy link")
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (3)")
    parser.add_argument("--seconds", type=float, default=10, help="how long one flow lasts (10)")
    parser.add_argument("--delay", type=float, default=20, help="milliseconds each way, by netem (20)")
    parser.add_argument("--loss", type=float, default=2, help="per cent of the packets each way (2)")
    return parser.parse_args(words)


def _as_text(found: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    facts = [f"{name}: {fact}" for name, fact in machine.facts().items()]
    lines = [
        *facts,
        f"link: {arguments.delay:g} ms and {arguments.loss:g} % loss each way; {arguments.rounds} rounds",
        "",
    ]
    medians = {}
    for road in ("direct", *TRANSPORTS):
        rates = [record["rate"] for record in found if record.get("road") == road]
        medians[road] = statistics.median(rates)
        each = ", ".join(f"{rate:.3f}" for rate in rates)
        lines.append(f"{road:7} {medians[road]:8.3f} MB/s   ({each})")
    lines.append(f"dtls / tls: {medians['dtls'] / medians['tls']:.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
