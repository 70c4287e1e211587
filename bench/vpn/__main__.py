"""`sudo .venv/bin/python -m bench.vpn`, from the repository's top folder: all that a VPN costs, in one run.

Three parts, one after the other: Culvert's own VPN in network namespaces (`bench.vpn.namespaces`, which takes
root), pppd over stunnel and over Culvert (`bench.vpn.pppd`) and a link that loses packets (`bench.vpn.loss`),
both in user-mode Linux. Each is a command by itself, with more to choose. Exit status 0 when everything was
measured, else the highest of the parts'.
"""

from __future__ import annotations

import argparse
import sys

from bench.vpn import loss, namespaces, pppd

PARTS = {"namespaces": namespaces.main, "pppd": pppd.main, "loss": loss.main}


def main() -> int:
    """Run the parts that the command line asks for."""
    parser = argparse.ArgumentParser(prog="bench.vpn", description="what VPNs cost, by all ways")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="this one; repeatable (all)")
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (3)")
    parser.add_argument("--seconds", type=float, help="how long one flow lasts (3, 4 and 10 in the parts)")
    arguments = parser.parse_args()
    words = ["--rounds", str(arguments.rounds)]
    if arguments.seconds is not None:
        words += ["--seconds", str(arguments.seconds)]
    worst = 0
    for part in arguments.part or PARTS:
        print(f"=== {part}", flush=True)
        worst = max(worst, PARTS[part](words))
        print(flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
