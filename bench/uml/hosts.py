"""In a guest: hosts (network namespaces), the links between them, and programs that run on a host."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
"""Of setns(2), which the os module has from Python 3.12 on."""

PATIENCE = 20.0
"""Seconds for what takes milliseconds."""


class HostError(Exception):
    """A command failed, or something did not come about: the text says which and shows its output."""


def eventually(seen: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > deadline:
            raise HostError(f"{what}: not seen in {seconds:.0f} s")
        time.sleep(0.05)  # each look costs a process, and there is one processor


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has gone through an interface, in both directions, with its link-layer headers."""

    size: int
    packets: int

    def since(self, before: Traffic) -> Traffic:
        return Traffic(self.size - before.size, self.packets - before.packets)


class Daemon:
    """A program that runs on a host until it is ended; `log` is what it writes on its standard streams."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self.pid = self._process.pid

    def await_end(self, seconds: float = PATIENCE) -> None:
        """Wait until it ends by itself. Raises HostError."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.log.stem} still runs after {seconds:.0f} s") from None

    def await_line(self, pattern: str) -> None:
        """Wait until a line of the log matches."""
        try:
            eventually(lambda: re.search(pattern, self.text()) is not None, pattern)
        except HostError as error:
            raise HostError(f"{error}; the log:\n{self.text()[-3000:]}") from None

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text("utf-8", "replace")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and give its exit status."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise HostError(f"{self.log.stem} did not end:\n{self.text()[-3000:]}") from None


class Host:
    """One host: a network namespace of this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        _run(["ip", "netns", "add", name])
        self._namespace = Path("/run/netns", name)
        self._prefix = ("nsenter", f"--net={self._namespace}", "--")
        self.run("ip", "link", "set", "lo", "up")
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def run(self, *argv: str, seconds: float = PATIENCE) -> str:
        """Run a command to its end; what it printed. Raises HostError."""
        return _run([*self._prefix, *argv], seconds)

    def start(self, name: str, *argv: str) -> Daemon:
        """Start a program that goes on."""
        return Daemon([*self._prefix, *argv], Path("/run", f"{self.name}-{name}.log"))

    @contextmanager
    def running(self, name: str, *argv: str) -> Iterator[Daemon]:
        """A program that goes on, until the end of the block."""
        daemon = self.start(name, *argv)
        try:
            yield daemon
        finally:
            daemon.end()

    def address(self, interface: str, *addresses: str) -> None:
        """Give an interface its addresses, and set it up."""
        for address in addresses:
            more = ["nodad"] if ":" in address else []
            self.run("ip", "address", "add", address, "dev", interface, *more)
        self.run("ip", "link", "set", interface, "up")

    def route(self, network: str, *way: str) -> None:
        """Send what is for a network this way, in the words of `ip route`."""
        self.run("ip", "route", "replace", network, *way)

    def way_to(self, address: str) -> str:
        """The interface to which an address of IPv4 is routed by itself; nothing where none is.

        For looks that are repeated: no process is started, which would take the processor from those that
        are waited for.
        """
        wanted = f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}"
        with self._namespace.open() as there, Path("/proc/thread-self/ns/net").open() as here:
            _enter(there.fileno())
            try:
                lines = Path("/proc/thread-self/net/route").read_text().splitlines()[1:]
            finally:
                _enter(here.fileno())
        return next((line.split()[0] for line in lines if line.split()[1] == wanted), "")

    def listening(self) -> list[int]:
        """The TCP ports on which somebody listens."""
        lines = self.run("ss", "-H", "-l", "-t", "-n").splitlines()
        return sorted(int(line.split()[3].rpartition(":")[2]) for line in lines)

    def traffic(self, interface: str) -> Traffic:
        """What has gone through an interface so far."""
        lines = self.run("ip", "-s", "link", "show", "dev", interface).splitlines()
        counted = [line.split() for line, above in zip(lines[1:], lines, strict=False) if "bytes" in above]
        return Traffic(sum(int(line[0]) for line in counted), sum(int(line[1]) for line in counted))

    def ping(self, address: str, count: int, *, interval: float = 0.01, size: int = 56) -> list[float]:
        """Round-trip times of so many pings, in milliseconds; lost ones have none. Raises HostError."""
        words = ("-n", "-c", str(count), "-i", str(interval), "-s", str(size), "-W", "2")
        output = self.run("ping", *words, address, seconds=PATIENCE + count * (interval + 0.2))
        return [float(found) for found in re.findall(r"time=([\d.]+) ms", output)]

    def impair(self, interface: str, *, delay: float = 0, loss: float = 0) -> None:
        """Have what leaves by an interface delayed (milliseconds) and lost (per cent): sch_netem."""
        words = ("delay", f"{delay}ms", "loss", f"{loss}%", "limit", "10000")
        self.run("tc", "qdisc", "replace", "dev", interface, "root", "netem", *words)

    def mend(self, interface: str) -> None:
        """Take `impair` back."""
        self.run("tc", "qdisc", "delete", "dev", interface, "root")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise HostError(f"setns: {os.strerror(ctypes.get_errno())}")


def link(one: tuple[Host, str, str], other: tuple[Host, str, str]) -> None:
    """Join two hosts by a cable: for each the name of its interface, and its address with a prefix length."""
    (host, interface, address), (far, far_interface, far_address) = one, other
    words = ("type", "veth", "peer", "name", far_interface, "netns", far.name)
    _run(["ip", "link", "add", interface, "netns", host.name, *words])
    host.address(interface, address)
    far.address(far_interface, far_address)


def median(times: Iterable[float]) -> float:
    """The median of some figures, in three digits behind the point."""
    return round(statistics.median(times), 3)


def _run(argv: Sequence[str], seconds: float = PATIENCE) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"{' '.join(argv)}: still running after {seconds:.0f} s") from None
    if done.returncode != 0:
        raise HostError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
