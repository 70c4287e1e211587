"""`python -m bench.vpn.namespaces`, as root: Culvert's own VPN, over TLS and DTLS, in network namespaces.

Two hosts are joined by a veth pair. All roads are open from the beginning and measured in turn, round by
round: the link itself, the VPN over TLS with offload, without it (single packets), and over DTLS; and for
pings a bare loop in Python, with TLS and without. Exit status 0 when everything was measured, 1 when
something failed, 2 when the bench could not begin.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine, peers
from bench.accounting import ProcessTree
from bench.errors import MeasureError

PROGRAMS = ("ip", "unshare", "nsenter", "ping", "iperf3")

NEAR, FAR = "192.0.2.1", "192.0.2.2"
INTERFACE = "eth0"
PINGS = 200
"""Apart by 20 ms: each finds the caches cold, as that of a person who types does."""

FLOOD = 2000
"""One after the other, as soon as the one before has its answer."""

ETHERNET = 14
PATIENCE = 30.0

_SETTLED = 0.5
"""Seconds without which the tail of what came before would count."""

_SERVER = """\
[vpn]
accept = {far}:{port}
cert = {certificate}
CAfile = {certificate}
verifyPeer = yes
tun = tun{number}
tunAddress = 10.9.{number}.1
tunPeer = 10.9.{number}.2
{options}
"""

_CLIENT = """\
[vpn]
client = yes
connect = {far}:{port}
cert = {certificate}
CAfile = {certificate}
verifyPeer = yes
tun = tun{number}
{options}
"""

_HEADER = "foreground = yes\nsyslog = no\npid =\nworkers = 1\ndebug = info\n"


class Host:
    """A network namespace, which lives as long as the process that holds it."""

    def __init__(self) -> None:
        holder = ["unshare", "--net", "sh", "-c", "echo up; exec sleep 3600"]
        self._holder = subprocess.Popen(holder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            self._holder.wait()
            raise MeasureError("no network namespace can be made: it takes root")
        self.pid = self._holder.pid

    def command(self, *words: str) -> list[str]:
        """A command, to be run here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *words]

    def run(self, *words: str, seconds: float = PATIENCE) -> str:
        """Run a command to its end; what it said."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise MeasureError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def traffic(self) -> int:
        """Bytes on the link so far, both ways, with Ethernet's headers."""
        link = json.loads(self.run("ip", "-json", "-statistics", "link", "show", "dev", INTERFACE))[0]
        counted = link["stats64"]
        return int(counted["rx"]["bytes"]) + int(counted["tx"]["bytes"])

    def close(self) -> None:
        """End it."""
        self._holder.kill()
        self._holder.communicate()


@dataclass(frozen=True, slots=True)
class Road:
    """A way to the far host: its address there, what carries it, and whether it is for pings alone."""

    address: str
    carriers: ProcessTree | None = None
    pings_alone: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """One round of one road."""

    ping: float
    flood: float
    wire: float
    rate: float
    cpu: float


class Hosts:
    """Both hosts, joined, and what runs on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._certificate = folder / "certificate.pem"
        peers.make_certificate(self._certificate)
        self.near, self.far = Host(), Host()
        ends = ("peer", "name", INTERFACE, "netns", str(self.far.pid))
        self.near.run("ip", "link", "add", INTERFACE, "type", "veth", *ends)
        for host, address in ((self.near, NEAR), (self.far, FAR)):
            host.run("ip", "link", "set", "lo", "up")
            host.run("ip", "address", "add", f"{address}/24", "dev", INTERFACE)
            host.run("ip", "link", "set", INTERFACE, "up")

    @contextlib.contextmanager
    def vpn(self, number: int, options: str) -> Iterator[Road]:
        """A VPN between the two; `number` is one that no other has."""
        values = {
            "certificate": self._certificate,
            "far": FAR,
            "port": 4430 + number,
            "number": number,
            "options": options,
        }
        with contextlib.ExitStack() as stack:
            daemons = []
            for host, text in ((self.far, _SERVER), (self.near, _CLIENT)):
                name = f"{'server' if host is self.far else 'client'}{number}"
                daemons.append(stack.enter_context(self._daemon(host, name, text.format(**values))))
            _eventually(lambda: f"10.9.{number}.1" in self.near.run("ip", "route"), "the VPN")
            yield Road(f"10.9.{number}.1", ProcessTree(*(one.pid for one in daemons)))

    @contextlib.contextmanager
    def bare(self, number: int, *, tls: bool) -> Iterator[Road]:
        """A bare loop in Python at each end: what there is to be had."""
        ends = (f"10.9.{number}.1", f"10.9.{number}.2")
        certificate = str(self._certificate) if tls else "-"
        with contextlib.ExitStack() as stack:
            for host, role, own in ((self.far, "server", ends), (self.near, "client", ends[::-1])):
                words = (role, f"tun{number}", *own, FAR, str(4430 + number), certificate)
                loop = subprocess.Popen(host.command(sys.executable, "-m", "bench.vpn.bare", *words))
                stack.callback(loop.wait, PATIENCE)
                stack.callback(loop.kill)
            _eventually(lambda: self._answers(ends[0]), "the bare loop")
            yield Road(ends[0], pings_alone=True)

    def _answers(self, address: str) -> bool:
        words = self.near.command("ping", "-q", "-c", "1", "-W", "1", address)
        return subprocess.run(words, capture_output=True, timeout=PATIENCE, check=False).returncode == 0

    @contextlib.contextmanager
    def _daemon(self, host: Host, name: str, text: str) -> Iterator[subprocess.Popen[bytes]]:
        path, log = self._folder / f"{name}.conf", self._folder / f"{name}.log"
        path.write_text(_HEADER + text)
        with log.open("wb") as file:
            daemon = subprocess.Popen(
                host.command(sys.executable, "-m", "culvert", "run", str(path)),
                stdin=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        try:
            _eventually(lambda: b"Accepting new connections" in log.read_bytes(), f"the start of {name}")
            yield daemon
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)

    def close(self) -> None:
        """End both."""
        self.near.close()
        self.far.close()


def _eventually(probe: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not probe():
        if time.monotonic() > deadline:
            raise MeasureError(f"{what} was not seen within {PATIENCE:g} s")
        time.sleep(0.05)


def measure(hosts: Hosts, road: Road, seconds: float) -> Figures:
    """All figures of one road, now."""
    hosts.near.run("ping", "-c", "5", "-i", "0.05", road.address)
    time.sleep(_SETTLED)
    before = hosts.near.traffic()
    said = hosts.near.run("ping", "-c", str(PINGS), "-i", "0.02", road.address)
    time.sleep(_SETTLED)
    wire = (hosts.near.traffic() - before) / PINGS
    times = [float(one) for one in re.findall(r"time=([0-9.]+) ms", said)]
    if len(times) < PINGS:
        raise MeasureError(f"{PINGS - len(times)} of {PINGS} pings had no answer")
    flood = re.search(r"= [0-9.]+/([0-9.]+)/", hosts.near.run("ping", "-qf", "-c", str(FLOOD), road.address))
    if flood is None:
        raise MeasureError("ping did not say how long a flood took")
    rate, cpu = (0.0, 0.0) if road.pings_alone else _flow(hosts, road, seconds)
    return Figures(statistics.median(times), float(flood[1]), wire, rate, cpu)


def _flow(hosts: Hosts, road: Road, seconds: float) -> tuple[float, float]:
    """One TCP flow to the far host: Mbit/s, and seconds of CPU per GB of those that carry it."""
    server = subprocess.Popen(hosts.far.command("iperf3", "--server", "--one-off"), stdout=subprocess.DEVNULL)
    try:
        _eventually(lambda: ":5201" in hosts.far.run("ss", "-ltn"), "iperf3")
        used = road.carriers.cpu_seconds() if road.carriers is not None else 0.0
        words = ("--client", road.address, "--time", f"{seconds:g}", "--json")
        found = json.loads(hosts.near.run("iperf3", *words, seconds=seconds + PATIENCE))
        used = road.carriers.cpu_seconds() - used if road.carriers is not None else 0.0
    finally:
        server.kill()
        server.wait()
    received = found["end"]["sum_received"]
    return received["bits_per_second"] / 1e6, used / (received["bytes"] / 1e9)


BARE = {"bare loop": False, "bare loop, TLS": True}

ROADS = {"TLS": "", "TLS, single packets": "tunOffload = no", "DTLS": "transport = dtls"}


def main(words: Sequence[str] | None = None) -> int:
    """Measure what the command line, or `words` in its place, asks for, and print the table."""
    parser = argparse.ArgumentParser(prog="bench.vpn.namespaces", description="Culvert's own VPN")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds (5)")
    parser.add_argument("--seconds", type=float, default=3, help="how long one flow lasts (3)")
    arguments = parser.parse_args(words)
    lacking = [program for program in (*PROGRAMS, "ss") if shutil.which(program) is None]
    if lacking or os.geteuid() != 0:
        print(f"bench.vpn.namespaces: needs root and {', '.join(lacking or PROGRAMS)}", file=sys.stderr)
        return 2
    found: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="culvert-bench-") as folder, contextlib.ExitStack() as stack:
        try:
            hosts = Hosts(Path(folder))
            stack.callback(hosts.close)
            roads = {"direct": Road(FAR)}
            for number, (name, options) in enumerate(ROADS.items(), 1):
                roads[name] = stack.enter_context(hosts.vpn(number, options))
            for number, (name, tls) in enumerate(BARE.items(), len(ROADS) + 1):
                roads[name] = stack.enter_context(hosts.bare(number, tls=tls))
            for _ in range(arguments.rounds):
                for name, road in roads.items():
                    found.setdefault(name, []).append(measure(hosts, road, arguments.seconds))
        except MeasureError as failure:
            print(f"bench.vpn.namespaces: {failure}", file=sys.stderr)
            return 1
    print("\n".join([*(f"{name}: {fact}" for name, fact in machine.facts().items()), "", *_table(found)]))
    return 0


def _table(found: dict[str, list[Figures]]) -> list[str]:
    middle = {name: _medians(rounds) for name, rounds in found.items()}
    direct = middle["direct"]
    rows: list[Sequence[str]] = [
        ("", "ping, ms", "times", "flood, ms", "IP per ping, bytes", "wire", "TCP, Mbit/s", "CPU, s/GB")
    ]
    for name, one in middle.items():
        rows.append(
            (
                name,
                f"{one.ping:.3f}",
                f"{one.ping / direct.ping:.1f}",
                f"{one.flood:.3f}",
                f"{one.wire / 2 - ETHERNET:.0f}",
                f"{one.wire:.0f}",
                f"{one.rate:.0f}" if one.rate else "",
                f"{one.cpu:.2f}" if one.cpu else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
    whole, single = middle["TLS"], middle["TLS, single packets"]
    return [
        *lines,
        "",
        f"offload: {whole.rate / single.rate:.1f} times the throughput of single packets, "
        f"{single.cpu / whole.cpu:.1f} times less CPU per GB",
        f"medians of {len(found['TLS'])} rounds; ping: {PINGS}, apart by 20 ms; flood: {FLOOD}, the mean",
        "IP per ping: one way, the mean of both, without Ethernet's header; wire: both ways, with it; "
        "acknowledgements count",
        "CPU: both ends of the tunnel; bare loop: a few lines of Python from interface to connection",
    ]


def _medians(rounds: Sequence[Figures]) -> Figures:
    columns = zip(*(dataclasses.astuple(one) for one in rounds), strict=True)
    return Figures(*map(statistics.median, columns))


if __name__ == "__main__":
    sys.exit(main())
