"""`python -m bench.vpn.pppd`, from the repository's top folder: pppd over stunnel and over Culvert.

It runs in user-mode Linux, all roads on one kernel in interleaved rounds; the figures are medians. Exit
status 0 when everything was measured, 1 when something failed, 2 when the bench could not begin.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine, peers
from bench.errors import MeasureError
from bench.uml.machine import boot, has_compiler, missing
from bench.vpn import classic, networks
from bench.vpn.measure import ROADS

_COLUMNS = {
    "ping": ("ping", "ms"),
    "best": ("best tenth", "ms"),
    "wire": ("wire per ping", "bytes"),
    "frames": ("frames per ping", ""),
    "rate": ("TCP", "MB/s"),
    "carriers": ("CPU, tunnel", "s/GB"),
    "guest": ("CPU, all", "s/GB"),
}
_PER_ROAD = 40.0
"""Seconds that one road may take in one round, beside its flow."""

_REMARKS = (
    "user-mode Linux, one processor, where a system call takes some 17 µs: the figures compare roads with",
    "each other, and with nothing else; all are open at once and measured by turns",
    "ping: median of 100, and the tenth best; wire: both directions of the link, with Ethernet's headers",
    "TCP: one flow of iperf3; CPU, tunnel: both ends of the TLS tunnel, without pppd; all: the whole guest",
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what the command line, or `words` in its place, asks for, and print the table."""
    arguments = _arguments(words)
    lacking = missing((*classic.PROGRAMS, "stunnel4", "iperf3", "tc"))
    if lacking:
        print(f"bench.vpn.pppd: not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        # As an exception, so that the guest and every file go the way they do at the end.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    roads = arguments.road or list(ROADS)
    with tempfile.TemporaryDirectory(prefix="culvert-bench-") as folder:
        certificate = Path(folder, "certificate.pem")
        peers.make_certificate(certificate)
        parameters = {
            "certificate": str(certificate),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "roads": roads,
            "delay": arguments.delay,
            "loss": arguments.loss,
        }
        limit = arguments.rounds * len(roads) * (_PER_ROAD + arguments.seconds)
        modules = (*networks.MODULES, *classic.MODULES, "sch_netem")
        try:
            found = boot(
                "bench.vpn.measure", parameters, seconds=limit, modules=modules, clock=arguments.clock
            )
        except MeasureError as failure:
            print(f"bench.vpn.pppd: {failure}", file=sys.stderr)
            return 1
    print(_as_text(roads, found, arguments))
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.vpn.pppd", description="pppd over TLS tunnels, side by side")
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (3)")
    parser.add_argument("--seconds", type=float, default=4, help="how long one flow lasts (4)")
    parser.add_argument("--road", action="append", choices=list(ROADS), help="this one; repeatable")
    parser.add_argument(
        "--clock",
        action=argparse.BooleanOptionalAction,
        default=has_compiler(),
        help="have programs read the clock without a system call, as on other kernels (where there is a cc)",
    )
    parser.add_argument("--delay", type=float, default=0, help="milliseconds each way, by netem")
    parser.add_argument("--loss", type=float, default=0, help="per cent of the packets each way, by netem")
    return parser.parse_args(words)


def _as_text(roads: Sequence[str], found: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> str:
    rows = [["", *(f"{what}, {unit}" if unit else what for what, unit in _COLUMNS.values())]]
    for road in roads:
        mine = [record for record in found if record.get("road") == road]
        rows.append([road, *(_three_digits(statistics.median(one[key] for one in mine)) for key in _COLUMNS)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
    link = f"link: {arguments.delay:g} ms and {arguments.loss:g} % loss each way; {arguments.rounds} rounds"
    clock = "clock: read " + (
        "without a system call, as elsewhere" if arguments.clock else "by a system call"
    )
    facts = [f"{name}: {fact}" for name, fact in machine.facts().items()]
    return "\n".join([*facts, link, clock, "", *table, "", *_REMARKS])


def _three_digits(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:#.3g}"


if __name__ == "__main__":
    sys.exit(main())
