"""In a guest: every road between the two gateways measured in turn, round by round, on one kernel.

A road is a context: it is there for the length of a block, and gives what there is to know of it. To measure
another one is to add it to ROADS.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.uml.guest import own_folder, report
from bench.uml.hosts import eventually
from bench.uml.processes import cpu_of_machine, descending
from bench.vpn import classic
from bench.vpn.networks import FAR, INTERFACE, Networks

_PINGS = 100
_FLOW_PORT = 5201
_SETTLED = 0.5
"""Seconds without which the tail of what came before would count."""


@dataclass(frozen=True, slots=True)
class Road:
    """A way to the far gateway: its address there, and the processes that carry it."""

    address: str
    carriers: tuple[int, ...] = ()


Opener = Callable[[Networks, str, int], contextlib.AbstractContextManager[Road]]
"""Opens a road; it is given the path of a certificate, and a number that no other road has."""


@contextlib.contextmanager
def _direct(networks: Networks, certificate: str, number: int) -> Iterator[Road]:
    yield Road(FAR)


@contextlib.contextmanager
def _classic(
    program: classic.Program, short: bool, networks: Networks, certificate: str, number: int
) -> Iterator[Road]:
    line = classic.Line(number)
    with classic.linked(networks, classic.Way(program, certificate, short), line) as tunnel:
        yield Road(line.far_end, (tunnel.server.pid, tunnel.client.pid))


ROADS: dict[str, Opener] = {
    "direct": _direct,
    "pppd, stunnel": partial(_classic, classic.STUNNEL, False),
    "pppd, Culvert": partial(_classic, classic.CULVERT, False),
    "pppd by exec, stunnel": partial(_classic, classic.STUNNEL, True),
    "pppd by exec, Culvert": partial(_classic, classic.CULVERT, True),
}


def run(parameters: dict[str, Any]) -> None:
    """Report a record for each round of each road, for `rounds`, `seconds` (of a flow), `roads`, `delay` in
    milliseconds and `loss` in per cent, each way, and the path of a `certificate`.

    All roads are open from the beginning, so that one follows the other at once in each round.
    """
    own_folder("/etc/ppp")
    networks = Networks()
    with contextlib.ExitStack() as stack:
        roads = {
            name: stack.enter_context(ROADS[name](networks, parameters["certificate"], number))
            for number, name in enumerate(parameters["roads"])
        }
        if parameters["delay"] or parameters["loss"]:
            for host in (networks.near, networks.far):
                host.impair(INTERFACE, delay=parameters["delay"], loss=parameters["loss"])
        for number in range(1, parameters["rounds"] + 1):
            for name, road in roads.items():
                report(round=number, road=name, **_figures(networks, road, parameters["seconds"]))
        if parameters["delay"] or parameters["loss"]:
            for host in (networks.near, networks.far):
                host.mend(INTERFACE)


def _figures(networks: Networks, road: Road, seconds: float) -> dict[str, float]:
    return _pings(networks, road) | _flow(networks, road, seconds)


def _pings(networks: Networks, road: Road) -> dict[str, float]:
    """Of one ping: the median time, and what it and its answer are on the wire, acknowledgements included."""
    near = networks.near
    near.ping(road.address, 5)
    time.sleep(_SETTLED)
    before = near.traffic(INTERFACE)
    times = near.ping(road.address, _PINGS)
    time.sleep(_SETTLED)
    wire = near.traffic(INTERFACE).since(before)
    return {
        "ping": statistics.median(times),
        "best": sorted(times)[len(times) // 10],
        "wire": wire.size / _PINGS,
        "frames": wire.packets / _PINGS,
    }


def _flow(networks: Networks, road: Road, seconds: float) -> dict[str, float]:
    """One TCP flow to the far gateway: its rate, and the CPU time of the road and of the whole guest."""
    server = networks.far.start("iperf3", "iperf3", "--server", "--one-off")
    try:
        eventually(lambda: _FLOW_PORT in networks.far.listening(), "iperf3 listening")
        carrying, busy = _cpu_of(road.carriers), cpu_of_machine()
        words = ("--client", road.address, "--time", str(seconds), "--json")
        outcome = json.loads(networks.near.run("iperf3", *words, seconds=seconds + 60))
        carrying, busy = _cpu_of(road.carriers) - carrying, cpu_of_machine() - busy
    finally:
        server.end()
    received = outcome["end"]["sum_received"]
    gigabytes = received["bytes"] / 1e9
    return {
        "rate": received["bits_per_second"] / 8e6,
        "carriers": carrying / gigabytes,
        "guest": busy / gigabytes,
    }


def _cpu_of(carriers: tuple[int, ...]) -> float:
    """CPU seconds of these programs so far, without the pppd that they run."""
    return sum(process.cpu for process in descending(*carriers) if process.name != "pppd")
