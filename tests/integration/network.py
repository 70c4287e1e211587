"""A client, a gateway and a backend, each in a network namespace of its own, over IPv4 and IPv6.

The namespaces have no names: each lives as long as the process that holds it, which is this one's child
and bounded in time, so that none is left behind whatever happens to the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from .harness import PATIENCE, eventually, require

LIFETIME = 300
"""Seconds after which a namespace goes even if nobody ends it."""

_CLONE_NEWNET = 0x40000000

CLIENT, GATEWAY_INSIDE, GATEWAY_OUTSIDE, BACKEND = (
    {4: "10.77.1.2", 6: "fd77:1::2"},
    {4: "10.77.1.1", 6: "fd77:1::1"},
    {4: "10.77.2.1", 6: "fd77:2::1"},
    {4: "10.77.2.2", 6: "fd77:2::2"},
)

_WAY_BACK = (
    # What the backend sends to a client's address must reach the gateway's own socket (tproxy.rst).
    "{iptables} -t mangle -A PREROUTING -p tcp -m socket --transparent -j MARK --set-mark 1",
    "ip {version} rule add fwmark 1 lookup 100",
    "ip {version} route add local {everything} dev lo table 100",
)


class Namespace:
    """A network namespace. `prefix` runs a command in it; `entered` makes sockets in it."""

    def __init__(self) -> None:
        holder = [require("unshare"), "--net", "sh", "-c", f"echo up; exec sleep {LIFETIME}"]
        self._holder = subprocess.Popen(
            holder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "up\n":
            _, why = self._holder.communicate(timeout=PATIENCE)
            raise OSError(why.strip())
        self.pid = self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """What goes before a command to run it in the namespace."""
        return [require("nsenter"), f"--net=/proc/{self.pid}/ns/net"]

    def run(self, *commands: str) -> None:
        """Runs commands in it, each to its end."""
        for command in commands:
            done = subprocess.run(
                [*self.prefix, *command.split()],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Has the calling thread be in it: sockets stay where they were made."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _set_namespace(Path(f"/proc/{self.pid}/ns/net"))
            try:
                yield
            finally:
                _set_namespace(Path(f"/proc/self/fd/{before}"))
        finally:
            os.close(before)

    def close(self) -> None:
        """Ends it."""
        self._holder.kill()
        self._holder.communicate(timeout=PATIENCE)


def _set_namespace(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


class Network:
    """The three, joined: what the client and the backend say to each other goes through the gateway."""

    def __init__(self) -> None:
        self._made: list[Namespace] = []
        try:
            self._made = [Namespace() for _ in range(3)]
        except OSError as error:
            self.close()
            reason = f"network namespaces cannot be made: {error}"
            if os.environ.get("CULVERT_REQUIRE_PEERS") == "1":
                pytest.fail(f"{reason}, and CULVERT_REQUIRE_PEERS=1", pytrace=False)
            pytest.skip(reason)
        self.client, self.gateway, self.backend = self._made
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        for command in ("ip", "iptables", "ip6tables"):
            require(command)
        _link(self.client, self.gateway, "inside", CLIENT, GATEWAY_INSIDE)
        _link(self.backend, self.gateway, "outside", BACKEND, GATEWAY_OUTSIDE)
        self.gateway.run(
            "ip link set lo up",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.inside.rp_filter=0",
            "sysctl -qw net.ipv4.conf.outside.rp_filter=0",
        )
        for version, iptables, everything in ((4, "iptables", "0.0.0.0/0"), (6, "ip6tables", "::/0")):
            words = {"version": f"-{version}", "iptables": iptables, "everything": everything}
            self.gateway.run(*(command.format(**words) for command in _WAY_BACK))

    def redirect(self, family: int, port: int, to: int) -> contextlib.AbstractContextManager[None]:
        """Has what the client sends to this port anywhere redirected to the gateway's own port."""
        return self._rule(family, "nat", f"--dport {port} -j REDIRECT --to-ports {to}")

    def hand_over(self, family: int, port: int, to: int) -> contextlib.AbstractContextManager[None]:
        """The same without a change of the packets (TPROXY)."""
        return self._rule(family, "mangle", f"--dport {port} -j TPROXY --on-port {to} --tproxy-mark 1")

    @contextlib.contextmanager
    def _rule(self, family: int, table: str, rule: str) -> Iterator[None]:
        iptables = f"{'iptables' if family == 4 else 'ip6tables'} -t {table}"
        self.gateway.run(f"{iptables} -A PREROUTING -i inside -p tcp {rule}")
        try:
            yield
        finally:
            self.gateway.run(f"{iptables} -D PREROUTING -i inside -p tcp {rule}")

    def close(self) -> None:
        """Ends all of it."""
        for namespace in self._made:
            namespace.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _link(
    end: Namespace, gateway: Namespace, name: str, address: dict[int, str], beyond: dict[int, str]
) -> None:
    """Joins a host to the gateway, which is its way to everywhere."""
    subprocess.run(
        [
            *("ip", "link", "add", "eth0", "netns", str(end.pid), "type", "veth"),
            *("peer", "name", name, "netns", str(gateway.pid)),
        ],
        check=True,
        timeout=PATIENCE,
    )
    for namespace, interface, own in ((end, "eth0", address), (gateway, name, beyond)):
        namespace.run(
            f"ip address add {own[4]}/24 dev {interface}",
            f"ip address add {own[6]}/64 dev {interface} nodad",
            f"ip link set {interface} up",
        )
    end.run(
        "ip link set lo up",
        f"ip route add default via {beyond[4]}",
        f"ip -6 route add default via {beyond[6]}",
    )


class Program:
    """A program that runs in a namespace, with what it logs on standard error."""

    def __init__(self, namespace: Namespace, argv: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [*namespace.prefix, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )

    def await_line(self, word: str) -> str:
        """The first line of the log with this word in it."""
        return eventually(
            lambda: next((line for line in self.log.read_text().splitlines() if word in line), ""), word
        )

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(PATIENCE)
