"""In a guest: the classic VPN, pppd at both ends of a TLS tunnel, by Culvert or by stunnel.

The server service runs pppd on a pseudoterminal for each client. On the other side pppd goes through the
client service's plain port, or the client service runs it by itself and has no port (`short`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.uml.hosts import Daemon, Host, HostError, eventually
from bench.vpn.networks import FAR, FAR_NETWORK, NEAR_NETWORK, Networks

MODULES = ("ppp_async",)
PROGRAMS = ("pppd", "ping", "ss", "sysctl")

_PATIENCE = 30.0
"""Seconds until a link is up or gone: pppd asks again after three."""

_DAEMON = "foreground = yes\nsyslog = no\npid =\ndebug = {debug}\n"

_SERVER = """\
[ppp]
accept = {line.server_port}
exec = /usr/sbin/pppd
execArgs = pppd local noauth nodetach {line.far_end}:{line.near_end}
pty = yes
cert = {certificate}
"""
_CLIENT = """\
[ppp]
client = yes
connect = {far}:{line.server_port}
CAfile = {certificate}
verifyPeer = yes
"""
_PLAIN = "accept = 127.0.0.1:{line.plain_port}\n"
_SHORT = """\
exec = /usr/sbin/pppd
execArgs = pppd local noauth nodetach
pty = yes
retry = yes
"""


@dataclass(frozen=True, slots=True)
class Line:
    """What tells one PPP link from others between the same hosts: its ports and its addresses."""

    number: int = 0

    @property
    def plain_port(self) -> int:
        return 5010 + 2 * self.number

    @property
    def server_port(self) -> int:
        return 5011 + 2 * self.number

    @property
    def near_end(self) -> str:
        return f"10.0.{self.number}.1"

    @property
    def far_end(self) -> str:
        return f"10.0.{self.number}.4"


_FIRST = Line()


@dataclass(frozen=True, slots=True)
class Program:
    """A program that makes TLS tunnels: `command` is followed by the path of a configuration."""

    name: str
    command: tuple[str, ...]
    options: str = ""


CULVERT = Program("Culvert", (sys.executable, "-m", "culvert", "run"), "workers = 1\ndrainTimeout = 0\n")
STUNNEL = Program("stunnel", ("stunnel4",))


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The programs at both ends of a tunnel that carries a PPP link."""

    server: Daemon
    client: Daemon


@dataclass(frozen=True, slots=True)
class Way:
    """How a link is made: by which program, with the path of a certificate, over a plain port or without."""

    program: Program
    certificate: str
    short: bool = False
    debug: int = 5


@contextlib.contextmanager
def served(networks: Networks, way: Way, line: Line = _FIRST) -> Iterator[Daemon]:
    """The server's end of PPP links, for one at a time, until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield _started(networks.far, way, line, _SERVER, stack)


@contextlib.contextmanager
def linked(
    networks: Networks, way: Way, line: Line = _FIRST, server: Daemon | None = None
) -> Iterator[Tunnel]:
    """A PPP link between the gateways, until the end of the block; to that server, if there is one."""
    client_side = _CLIENT + (_SHORT if way.short else _PLAIN)
    with contextlib.ExitStack() as stack:
        server = server or stack.enter_context(served(networks, way, line))
        client = _started(networks.near, way, line, client_side, stack)
        if not way.short:
            _dial(networks.near, line, stack)
        try:
            await_link(networks, line)
        except HostError as error:
            logs = "\n".join(f"{daemon.log}:\n{daemon.text()}" for daemon in (server, client))
            raise HostError(f"{error}\n{logs}") from None
        yield Tunnel(server, client)
    await_no_link(networks, line)


def await_link(networks: Networks, line: Line = _FIRST) -> None:
    """Wait until both ends of the link have each other's address behind it."""
    for host, address in ((networks.near, line.far_end), (networks.far, line.near_end)):
        eventually(lambda: host.way_to(address) != "", f"{host.name} with {address}", _PATIENCE)  # noqa: B023


def await_no_link(networks: Networks, line: Line = _FIRST) -> None:
    """Wait until neither has it any more."""
    for host, address in ((networks.near, line.far_end), (networks.far, line.near_end)):
        eventually(lambda: not host.way_to(address), f"{host.name} without {address}", _PATIENCE)  # noqa: B023


def route(networks: Networks, line: Line = _FIRST) -> None:
    """Send what the networks have for each other over the link."""
    networks.near.route(FAR_NETWORK, "dev", networks.near.way_to(line.far_end))
    networks.far.route(NEAR_NETWORK, "dev", networks.far.way_to(line.near_end))


def _dial(host: Host, line: Line, stack: contextlib.ExitStack) -> None:
    """Start the PPP client that goes through the plain port, again and again until it is through.

    stunnel's far end may echo its first words, before the pppd there has set up the terminal.
    """
    again = ("persist", "maxfail", "0", "holdoff", "1")
    plain = f"127.0.0.1:{line.plain_port}"
    words = ("socket", plain, "local", "noauth", "nodetach", *again)
    stack.callback(host.start(f"pppd{line.number}", "pppd", *words).end)


def _started(host: Host, way: Way, line: Line, section: str, stack: contextlib.ExitStack) -> Daemon:
    name = f"{way.program.name}{line.number}"
    path = Path("/run", f"{host.name}-{name}.conf")
    options = (_DAEMON + way.program.options).format(debug=way.debug)
    path.write_text(options + section.format(line=line, far=FAR, certificate=way.certificate))
    daemon = host.start(name, *way.program.command, str(path))
    stack.callback(daemon.end)
    daemon.await_line("Configuration successful|Accepting new connections")
    return daemon
