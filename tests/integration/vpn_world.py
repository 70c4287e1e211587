"""A VPN's server and two clients, each in a network namespace of its own, joined by plain links.

Each client has its own link to the server's host, so that only the VPN joins the two. The daemons run as
they would on three hosts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Authority, Leaf
from .harness import PATIENCE, Culvert, require
from .network import Namespace

OUTER = {"alpha": ("10.78.1.1", "10.78.1.2"), "beta": ("10.78.2.1", "10.78.2.2")}
"""The server's and the client's address on each link."""

SERVER = """\
[vpn]
accept = 0.0.0.0:4430
cert = {cert}
key = {key}
CAfile = {ca}
verifyChain = yes
tun = cvs0
{options}
"""

CLIENT = """\
[vpn]
client = yes
connect = {connect}:4430
cert = {cert}
key = {key}
CAfile = {ca}
verifyChain = yes
checkHost = server
TIMEOUTconnect = 2
tun = cvc0
{options}
"""


def namespaces(count: int) -> list[Namespace]:
    """So many network namespaces, or a skip that says what is missing."""
    for command in ("ip", "unshare", "nsenter", "ping"):
        require(command)
    made: list[Namespace] = []
    try:
        if not Path("/dev/net/tun").exists():
            raise OSError("there is no /dev/net/tun")
        made.extend(Namespace() for _ in range(count))
    except OSError as error:
        for one in made:
            one.close()
        reason = f"a VPN needs root and network namespaces: {error}"
        if os.environ.get("CULVERT_REQUIRE_PEERS") == "1":
            pytest.fail(f"{reason}, and CULVERT_REQUIRE_PEERS=1", pytrace=False)
        pytest.skip(reason)
    return made


@dataclass(frozen=True)
class Identities:
    """The CA and the leaves of the three."""

    ca: Authority
    leaves: dict[str, Leaf]

    @classmethod
    def issue(cls, folder: Path) -> Identities:
        ca = Authority(folder, "VPN CA")
        leaves = {name: ca.leaf(name, hosts=(name,), addresses=()) for name in ("server", *OUTER)}
        return cls(ca, leaves)


class VpnWorld:
    """The hosts; `server` and `client` make their daemons, which are to be started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o755)
        self.identities = Identities.issue(folder)
        server, *clients = namespaces(3)
        self.hosts = {"server": server, "alpha": clients[0], "beta": clients[1]}
        try:
            for name in OUTER:
                self._join(name)
            server.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        except BaseException:
            self.close()
            raise

    def _join(self, name: str) -> None:
        server, client = self.hosts["server"], self.hosts[name]
        command = ("ip", "link", "add", "eth0", "netns", str(client.pid), "type", "veth")
        ends = ("peer", "name", name, "netns", str(server.pid))
        subprocess.run([*command, *ends], check=True, timeout=PATIENCE)
        for host, interface, address in (
            (server, name, OUTER[name][0]),
            (client, "eth0", OUTER[name][1]),
        ):
            host.run(
                "ip link set lo up",
                f"ip address add {address}/24 dev {interface}",
                f"ip link set {interface} up",
            )

    def close(self) -> None:
        """Ends the namespaces."""
        for host in self.hosts.values():
            host.close()

    def server(self, options: str, daemon: str = "") -> Culvert:
        """The server's daemon, with these options of its VPN, and these of its own."""
        return self._daemon("server", self.server_section(options), daemon)

    def client(self, name: str, options: str = "", daemon: str = "") -> Culvert:
        """A client's daemon."""
        return self._daemon(name, self.client_section(name, options), daemon)

    def server_section(self, options: str) -> str:
        """The configuration of the server."""
        return SERVER.format(**self._files("server"), options=options)

    def client_section(self, name: str, options: str = "") -> str:
        """The configuration of a client."""
        return CLIENT.format(**self._files(name), connect=OUTER[name][0], options=options)

    def _files(self, name: str) -> dict[str, str]:
        leaf = self.identities.leaves[name]
        return {"cert": str(leaf.cert), "key": str(leaf.key), "ca": str(self.identities.ca.cert)}

    def _daemon(self, name: str, section: str, options: str) -> Culvert:
        folder = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Culvert(folder, section, options=options, prefix=self.hosts[name].prefix)

    def ask(self, host: str, command: str) -> str:
        """What a command in a host says; nothing where it fails."""
        done = subprocess.run(
            [*self.hosts[host].prefix, *command.split()],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.stdout if done.returncode == 0 else ""

    def pings(self, host: str, address: str, *more: str) -> bool:
        """Whether an address answers, once."""
        return bool(self.ask(host, f"ping -c 1 -W 2 {' '.join(more)} {address}"))

    def addresses(self, host: str, interface: str) -> set[str]:
        """The addresses of an interface, but for those of the link; none where there is no interface."""
        found = json.loads(self.ask(host, f"ip -json address show dev {interface}") or "[]")
        return {info["local"] for link in found for info in link["addr_info"] if info["scope"] == "global"}

    def routes(self, host: str, interface: str) -> set[str]:
        """The destinations that are routed to an interface by Culvert."""
        found = []
        for version in (4, 6):
            answer = self.ask(host, f"ip -{version} -json route show dev {interface} proto static")
            found += json.loads(answer or "[]")
        return {route["dst"] for route in found}

    def transfer(self, source: str, destination: str, address: str, size: int) -> tuple[str, str]:
        """Digests of what one host sent to another over one TCP connection, and of what came."""
        with self.hosts[destination].entered():
            listening = socket.create_server(
                (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
            )
        listening.settimeout(PATIENCE)
        received = hashlib.sha256()

        def receive() -> None:
            taken, _ = listening.accept()
            with taken:
                taken.settimeout(PATIENCE)
                while data := taken.recv(1 << 16):
                    received.update(data)

        thread = threading.Thread(target=receive)
        thread.start()
        sent = hashlib.sha256()
        with listening, self.connection(source, address, listening.getsockname()[1]) as sock:
            for _ in range(size >> 16):
                block = os.urandom(1 << 16)
                sent.update(block)
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            thread.join(PATIENCE)
        return sent.hexdigest(), received.hexdigest()

    def connection(self, source: str, address: str, port: int) -> socket.socket:
        """A TCP connection from a host."""
        with self.hosts[source].entered():
            return socket.create_connection((address, port), PATIENCE)


@contextlib.contextmanager
def running(*daemons: Culvert) -> Iterator[None]:
    """These daemons at work, started in this order; clients have met their server."""
    with contextlib.ExitStack() as stack:
        for daemon in daemons:
            stack.enter_context(daemon)
            if "client = yes" in daemon.path.read_text():
                daemon.await_log("VPN: this end has")
        yield
