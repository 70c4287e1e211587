"""What is measured, and how: each measure puts one program to work and gives its figures.

Every figure is taken from processes that were started for it alone.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from OpenSSL import SSL

from bench import backend, load, peers
from bench.accounting import ProcessTree
from bench.errors import MeasureError
from bench.peers import End, Program, Tunnel


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one measure of one program works: seconds, or a number of connections or starts."""

    rounds: int
    budget: float
    """Seconds for all rounds: none begins that would probably end later."""
    bulk: float
    trips: float
    handshakes: int
    idle: int
    starts: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What every measure is given beside the program."""

    folder: Path
    certificate: Path
    effort: Effort

    def end(self, program: Program, end: End) -> contextlib.AbstractContextManager[Tunnel]:
        """One running end of a tunnel."""
        return peers.running(program, end, self.folder, self.certificate)

    @contextlib.contextmanager
    def both_ends(self, program: Program, kind: str) -> Iterator[tuple[int, ProcessTree]]:
        """A client end before a server end before a backend: the port to connect to, and the two ends."""
        with (
            backend.running(kind) as port,
            self.end(program, End(client=False, connect=port)) as server,
            self.end(program, End(client=True, connect=server.port)) as client,
        ):
            yield client.port, ProcessTree(server.pid, client.pid)

    @contextlib.contextmanager
    def server_end(self, program: Program, kind: str, *, pinned: bool = True) -> Iterator[Tunnel]:
        """A server end before a backend."""
        with (
            backend.running(kind) as port,
            self.end(program, End(client=False, connect=port, pinned=pinned)) as server,
        ):
            yield server


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one measure by the name of the quantity, in its unit; and what else there is to say."""

    figures: Mapping[str, float]
    notes: tuple[str, ...] = ()


def bulk(program: Program, scene: Scene) -> Outcome:
    """One connection at full speed through both ends, each way."""
    figures: dict[str, float] = {}
    for direction, kind, transfer in (("upload", "sink", load.upload), ("download", "source", load.download)):
        with scene.both_ends(program, kind) as (port, tree):
            before = tree.cpu_seconds()
            done = transfer(port, scene.effort.bulk)
            used = tree.cpu_seconds() - before
        gigabytes = done.size / 1e9
        figures[f"{direction}_cpu"] = used / gigabytes
        figures[f"{direction}_rate"] = gigabytes / done.seconds
    return Outcome(figures)


def trips(program: Program, scene: Scene) -> Outcome:
    """Messages of 64 bytes there and back through both ends, on 1 and on 50 connections."""
    figures: dict[str, float] = {}
    for count in (1, 50):
        with scene.both_ends(program, "echo") as (port, tree), load.EchoClients(port, count) as clients:
            before = tree.cpu_seconds()
            times = clients.run(scene.effort.trips)
            used = tree.cpu_seconds() - before
        figures[f"trip_cpu_{count}"] = used / len(times) * 1e6
        figures[f"trip_median_{count}"] = statistics.median(times) / 1e3
        figures[f"trip_p99_{count}"] = statistics.quantiles(times, n=100)[-1] / 1e3
    return Outcome(figures)


def handshakes(program: Program, scene: Scene) -> Outcome:
    """Connections to the server end, one after the other."""
    seconds = scene.effort.handshakes
    with scene.server_end(program, "answer") as server:
        own = partial(load.handshakes, server.port, seconds)
        s_time = partial(load.s_time, server.port, seconds)
        figures = {
            "full": _cpu_each(server, partial(own, SSL.TLS1_3_VERSION, resume=False)),
            "resumed_tls13": _cpu_each(server, partial(own, SSL.TLS1_3_VERSION, resume=True)),
            "resumed_tls12": _cpu_each(server, partial(own, SSL.TLS1_2_VERSION, resume=True)),
            "full_request": _cpu_each(server, partial(s_time, resume=False)),
            "resumed_request": _cpu_each(server, partial(s_time, resume=True)),
        }
    with scene.server_end(program, "answer", pinned=False) as server:
        own = partial(load.handshakes, server.port, seconds, SSL.TLS1_3_VERSION, resume=False)
        figures["full_default"] = _cpu_each(server, own)
        with load.TlsClient(server.port, load.tls_context()) as client:
            group = client.group()
    return Outcome(figures, (f"{program.name}'s default group here: {group}",))


def _cpu_each(server: Tunnel, work: Callable[[], int]) -> float:
    """Microseconds of the server's CPU time for each connection that the work made, once it is warm."""
    with load.TlsClient(server.port, load.tls_context()) as client:
        client.finish()
    tree = ProcessTree(server.pid)
    before = tree.cpu_seconds()
    made = work()
    if not made:
        raise MeasureError("not one handshake was made")
    return (tree.cpu_seconds() - before) / made * 1e6


def memory(program: Program, scene: Scene) -> Outcome:
    """How much the server end grows by idle connections."""
    with scene.server_end(program, "echo") as server:
        with load.TlsClient(server.port, load.tls_context()) as client:
            client.round_trip()
        tree = ProcessTree(server.pid)
        before = tree.memory_bytes()
        with load.idle_connections(server.port, scene.effort.idle):
            growth = tree.memory_bytes() - before
    return Outcome({"idle": growth / scene.effort.idle / 1024})


def start(program: Program, scene: Scene) -> Outcome:
    """From the start of the process to its service, and what it holds once it served one connection."""
    accepted: list[float] = []
    served: list[float] = []
    at_rest: list[float] = []
    for _ in range(scene.effort.starts):
        with scene.server_end(program, "echo") as server:
            accepted.append((server.accepted - server.spawned) * 1e3)
            with load.TlsClient(server.port, load.tls_context()) as client:
                client.round_trip()
                served.append((time.monotonic() - server.spawned) * 1e3)
            at_rest.append(ProcessTree(server.pid).memory_bytes() / 1024**2)
    return Outcome(
        {
            "start_accepted": statistics.median(accepted),
            "start_served": statistics.median(served),
            "at_rest": statistics.median(at_rest),
        }
    )


MEASURES: Mapping[str, Callable[[Program, Scene], Outcome]] = {
    "bulk": bulk,
    "trips": trips,
    "handshakes": handshakes,
    "memory": memory,
    "start": start,
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A line of the table. A goal bounds the ratio of Culvert to stunnel, or Culvert's figure itself."""

    name: str
    what: str
    unit: str
    ratio_at_most: float | None = None
    figure_below: float | None = None


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("upload_cpu", "CPU per GB, upload", "s", ratio_at_most=0.85),
    Quantity("download_cpu", "CPU per GB, download", "s", ratio_at_most=0.85),
    Quantity("upload_rate", "speed, upload", "GB/s"),
    Quantity("download_rate", "speed, download", "GB/s"),
    Quantity("trip_cpu_50", "CPU per round trip, 50 connections", "µs", ratio_at_most=0.6),
    Quantity("trip_median_50", "latency, 50 connections, median", "µs"),
    Quantity("trip_p99_50", "latency, 50 connections, p99", "µs"),
    Quantity("trip_cpu_1", "CPU per round trip, 1 connection", "µs"),
    Quantity("trip_median_1", "latency, 1 connection, median", "µs", ratio_at_most=1.3),
    Quantity("trip_p99_1", "latency, 1 connection, p99", "µs"),
    Quantity("full", "CPU per full handshake, TLS 1.3", "µs", ratio_at_most=1.0),
    Quantity("full_default", "CPU per full handshake, TLS 1.3, default group", "µs"),
    Quantity("resumed_tls13", "CPU per resumed handshake, TLS 1.3", "µs", ratio_at_most=1.0),
    Quantity("resumed_tls12", "CPU per resumed handshake, TLS 1.2", "µs", ratio_at_most=1.0),
    Quantity("full_request", "CPU per full handshake and request, TLS 1.3", "µs", ratio_at_most=1.0),
    Quantity("resumed_request", "CPU per resumed handshake and request, TLS 1.3", "µs", ratio_at_most=1.0),
    Quantity("idle", "memory per idle connection", "KiB", ratio_at_most=0.4),
    Quantity("at_rest", "memory at rest", "MiB"),
    Quantity("start_accepted", "start to first accepted connection", "ms", figure_below=1000),
    Quantity("start_served", "start to first round trip over TLS", "ms", figure_below=1000),
)
