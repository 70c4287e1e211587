"""`python -m bench.vpn.loss`, from the repository's top folder: one TCP flow through a VPN over a lossy link.

Culvert's own VPN over TLS and over DTLS between the same two hosts, on one kernel (user-mode Linux with
sch_netem), measured by turns: TCP inside TCP has every loss repaired twice, and the outer one makes the inner one wait.
Exit status 0 when everything was measured, 1 when something failed, 2 when the bench could not begin.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import machine, peers
from bench.errors import MeasureError
from bench.uml.guest import report
from bench.uml.hosts import Daemon, Host, eventually
from bench.uml.machine import boot, missing
from bench.vpn.networks import FAR, INTERFACE, MODULES, Networks

TRANSPORTS = ("tls", "dtls")

_FLOW_PORT = 5201
_DAEMON = "foreground = yes\nsyslog = no\npid =\ndebug = 6\n"
_SERVER = """\
[vpn]
accept = {far}:{port}
cert = {certificate}
transport = {transport}
tun = {transport}0
tunAddress = {server}
tunPeer = {client}
"""
_CLIENT = """\
[vpn]
client = yes
connect = {far}:{port}
CAfile = {certificate}
verifyPeer = yes
transport = {transport}
tun = {transport}0
"""
_PLACES = {"tls": (4430, "10.8.0.1", "10.8.0.2"), "dtls": (4440, "10.9.0.1", "10.9.0.2")}
_ONE_FLOW = 30.0
"""Seconds for one flow beside its own."""


def run(parameters: dict[str, Any]) -> None:
    """In the guest: report a record for each flow, of `rounds` rounds, each `seconds` long, with `delay` in
    milliseconds and `loss` in per cent each way, and the path of a `certificate`.
    """
    networks = Networks()
    for host in (networks.near, networks.far):
        # Each packet of the link meets its own fate: none of 64 kB is lost as a whole.
        host.run("ip", "link", "set", INTERFACE, "gso_max_segs", "1", "gso_max_size", "1500")
    with contextlib.ExitStack() as stack:
        for transport in TRANSPORTS:
            stack.enter_context(_tunnel(networks, transport, parameters["certificate"]))
        for host in (networks.near, networks.far):
            host.impair(INTERFACE, delay=parameters["delay"], loss=parameters["loss"])
        for number in range(1, parameters["rounds"] + 1):
            report(round=number, road="direct", rate=_rate(networks, FAR, parameters["seconds"]))
            for transport in TRANSPORTS:
                rate = _rate(networks, _PLACES[transport][1], parameters["seconds"])
                report(round=number, road=transport, rate=rate)
        for host in (networks.near, networks.far):
            host.mend(INTERFACE)


@contextlib.contextmanager
def _tunnel(networks: Networks, transport: str, certificate: str) -> Iterator[None]:
    port, server, client = _PLACES[transport]
    words = {
        "far": FAR,
        "port": port,
        "certificate": certificate,
        "transport": transport,
        "server": server,
        "client": client,
    }
    with contextlib.ExitStack() as stack:
        far = _started(networks.far, transport, _SERVER.format(**words))
        stack.callback(far.end)
        far.await_line("Accepting new connections")
        near = _started(networks.near, transport, _CLIENT.format(**words))
        stack.callback(near.end)
        near.await_line(f"VPN: this end has .* over {transport.upper()} ")
        yield


def _started(host: Host, transport: str, section: str) -> Daemon:
    path = Path("/run", f"{host.name}-{transport}.conf")
    path.write_text(_DAEMON + section)
    return host.start(f"culvert-{transport}", sys.executable, "-m", "culvert", "run", str(path))


def _rate(networks: Networks, address: str, seconds: float) -> float:
    """What one TCP flow carries, in MB/s."""
    server = networks.far.start("iperf3", "iperf3", "--server", "--one-off")
    try:
        eventually(lambda: _FLOW_PORT in networks.far.listening(), "iperf3 listening")
        words = ("--client", address, "--time", str(seconds), "--json")
        outcome = json.loads(networks.near.run("iperf3", *words, seconds=seconds + 60))
    finally:
        server.end()
    return float(outcome["end"]["sum_received"]["bits_per_second"]) / 8e6


def main() -> int:
    """Measure, and print the table."""
    arguments = _arguments()
    lacking = missing(("iperf3", "tc", "ss", "sysctl"))
    if lacking:
        print(f"bench.vpn.loss: not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="culvert-bench-") as folder:
        certificate = Path(folder, "certificate.pem")
        peers.make_certificate(certificate)
        parameters = {
            "certificate": str(certificate),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "delay": arguments.delay,
            "loss": arguments.loss,
        }
        limit = 60 + arguments.rounds * 3 * (arguments.seconds + _ONE_FLOW)
        try:
            found = boot("bench.vpn.loss", parameters, seconds=limit, modules=(*MODULES, "tun", "sch_netem"))
        except MeasureError as failure:
            print(f"bench.vpn.loss: {failure}", file=sys.stderr)
            return 1
    print(_as_text(found, arguments))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.vpn.loss", description="A VPN over a lossy link")
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (3)")
    parser.add_argument("--seconds", type=float, default=10, help="how long one flow lasts (10)")
    parser.add_argument("--delay", type=float, default=20, help="milliseconds each way, by netem (20)")
    parser.add_argument("--loss", type=float, default=2, help="per cent of the packets each way (2)")
    return parser.parse_args()


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
