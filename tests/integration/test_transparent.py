"""transparent: the client's address at the backend and the client's destination, over a gateway.

What the backend saw is told by its own log: socat's, which accepts and echoes, in clear and by TLS.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .certificates import Certificates
from .daemon import NOBODY, children, command, needs_root, run, status
from .echo import echo, finish, trusting
from .harness import Culvert, require
from .network import BACKEND, CLIENT, GATEWAY_INSIDE, GATEWAY_OUTSIDE, Network, Program
from .peers import PlainPeer, TlsPeer, dial

pytestmark = needs_root

PLAIN, SECURE = 7001, 7002
"""The backend's ports: its namespace has no others."""

NET_RAW = f"{1 << 13:016x}"


class World:
    """The network, the echoing backend and a daemon of two workers on the gateway, which run as nobody."""

    def __init__(self, folder: Path, certificates: Certificates, stack: ExitStack) -> None:
        self.certificates = certificates
        self.network = stack.enter_context(Network())
        self.backends = {
            (family, port): self._backend(folder, family, port, stack)
            for family in (4, 6)
            for port in (PLAIN, SECURE)
        }
        self.daemon = Culvert(
            folder,
            "\n".join(self._sections()),
            options=f"setuid = nobody\nsetgid = nogroup\nadmin = {folder / 'admin'}\n",
            workers=2,
            prefix=self.network.gateway.prefix,
        )
        stack.enter_context(self.daemon)

    def _backend(self, folder: Path, family: int, port: int, stack: ExitStack) -> Program:
        kind = "TCP" if port == PLAIN else "OPENSSL"
        options = f"bind=[{BACKEND[family]}]" if family == 6 else f"bind={BACKEND[family]}"
        leaf = self.certificates.server
        if port == SECURE:
            options += f",cert={leaf.bundle},verify=0"
        listen = f"{kind}-LISTEN:{port},{options},fork,reuseaddr,pf=ip{family}"
        log = folder / f"backend{family}{port}.log"
        backend = Program(self.network.backend, [require("socat"), "-d", "-d", listen, "PIPE"], log)
        stack.callback(backend.close)
        backend.await_line("listening on")
        return backend

    def _sections(self) -> Iterator[str]:
        leaf, ca = self.certificates.server, self.certificates.ca.cert
        roles = {
            "server": (PLAIN, f"cert = {leaf.cert}\nkey = {leaf.key}"),
            "client": (SECURE, f"client = yes\nCAfile = {ca}\nverifyChain = yes\ncheckHost = localhost"),
        }
        for role, (port, options) in roles.items():
            for family in (4, 6):
                accept = f"accept = {GATEWAY_INSIDE[family]}:0"
                target = f"connect = {BACKEND[family]}:{port}"
                anywhere = f"accept = {'0.0.0.0' if family == 4 else '::'}:0"
                for mode, ends in {
                    "source": f"{accept}\n{target}",
                    "destination": anywhere,
                    "both": anywhere,
                }.items():
                    yield f"[{mode} {role} {family}]\n{ends}\n{options}\ntransparent = {mode}"
        program = "exec = /bin/cat\nexecArgs = cat /proc/self/status"
        yield f"[program]\naccept = {GATEWAY_INSIDE[4]}:0\n{program}\n{roles['server'][1]}\n"

    def dial(self, role: str, family: int, host: str, port: int) -> tuple[TlsPeer | PlainPeer, str]:
        """The client's connection to this address, after its handshake, and its own port."""
        with self.network.client.entered():
            sock = dial(port, host)
        own = str(sock.getsockname()[1])
        if role == "client":
            return PlainPeer(sock), own
        peer = TlsPeer(sock, trusting(self.certificates.ca.cert), server=False)
        peer.handshake()
        return peer, own

    def seen(self, role: str, family: int) -> tuple[str, str]:
        """The address and port that the backend has logged for its last connection."""
        backend = self.backends[family, PLAIN if role == "server" else SECURE]
        found = re.findall(r"accepting connection from AF=\d+ (\S+):(\d+) on", backend.log.read_text())
        host, port = found[-1]
        return host.strip("[]"), port


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    """One world for all tests of this module."""
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("transparent"), certificates, stack)


def expanded(address: str) -> bytes:
    """An address as bytes: socat writes IPv6 in full."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@pytest.mark.parametrize("family", [4, 6])
def test_the_backend_sees_the_client(world: World, role: str, family: int) -> None:
    port = world.daemon.port(f"source {role} {family}")
    peer, own = world.dial(role, family, GATEWAY_INSIDE[family], port)
    echo(peer)
    finish(peer)
    host, seen_port = world.seen(role, family)
    assert expanded(host) == expanded(CLIENT[family])
    assert seen_port == own


@pytest.mark.parametrize("way", ["redirected", "handed over"])
@pytest.mark.parametrize("mode", ["destination", "both"])
@pytest.mark.parametrize("family", [4, 6])
def test_the_client_reaches_what_it_wanted(world: World, role: str, family: int, mode: str, way: str) -> None:
    wanted = PLAIN if role == "server" else SECURE
    own_port = world.daemon.port(f"{mode} {role} {family}")
    take = world.network.redirect if way == "redirected" else world.network.hand_over
    with take(family, wanted, own_port):
        peer, _ = world.dial(role, family, BACKEND[family], wanted)
        echo(peer)
        finish(peer)
    host, _ = world.seen(role, family)
    expected = CLIENT if mode == "both" else GATEWAY_OUTSIDE
    assert expanded(host) == expanded(expected[family])


@pytest.mark.parametrize("family", [4, 6])
def test_a_service_does_not_connect_to_itself(world: World, family: int) -> None:
    mark = world.daemon.log.mark()
    port = world.daemon.port(f"destination client {family}")
    with suppress(ConnectionError):  # maybe before the client's connect has returned
        peer, _ = world.dial("client", family, GATEWAY_INSIDE[family], port)
        try:
            assert peer.recv() == b""
        finally:
            peer.close()
    world.daemon.await_log("which is this service itself: its connection was not redirected", since=mark)


def test_workers_keep_one_power_and_nobody_else_any(world: World) -> None:
    *workers, administers = sorted(
        children(world.daemon.pid), key=lambda pid: status(pid)["CapPrm"], reverse=True
    )
    assert len(workers) == 2
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert status(administers)[name] == ["0" * 16]
    for pid in workers:
        fields = status(pid)
        assert fields["Uid"] == [str(NOBODY)] * 4
        assert [fields[name] for name in ("CapPrm", "CapEff")] == [[NET_RAW]] * 2
        assert [fields[name] for name in ("CapInh", "CapBnd", "CapAmb")] == [["0" * 16]] * 3
    peer, _ = world.dial("server", 4, GATEWAY_INSIDE[4], world.daemon.port("program"))
    said = b""
    while data := peer.recv():
        said += data
    finish(peer)
    for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"):
        assert f"{name}:\t{'0' * 16}" in said.decode()


def test_one_process_goes_on_after_a_reload(world: World) -> None:
    """It is nobody by then, and sets up its listening socket anew."""
    service = "client = yes\n[{}]\naccept = 0.0.0.0:0\ntransparent = both\n"
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the file is read again as nobody
        with Culvert(
            Path(folder),
            service.format("before"),
            options="setuid = nobody\nsetgid = nogroup\n",
            workers=0,
            prefix=world.network.gateway.prefix,
        ) as daemon:
            assert status(daemon.pid)["CapEff"] == [NET_RAW]
            mark = daemon.reload(service.format("after"))
            daemon.await_log("Accepting new connections", since=mark)
            with world.network.hand_over(4, SECURE, daemon.port("after")):
                peer, _ = world.dial("client", 4, BACKEND[4], SECURE)
                echo(peer)
                finish(peer)
    assert expanded(world.seen("client", 4)[0]) == expanded(CLIENT[4])


POWERLESS = ("setpriv", "--bounding-set=-net_raw,-net_admin")
"""Root without the two capabilities of which each would do."""


def test_source_without_the_right_is_refused_at_start(tmp_path: Path) -> None:
    path = tmp_path / "source.conf"
    path.write_text(
        "client = yes\nforeground = yes\nsyslog = no\n"
        "[s]\naccept = 127.0.0.1:0\nconnect = 1\ntransparent = source\n"
    )
    done = run([require("setpriv"), POWERLESS[1], *command("run", path)])
    assert done.returncode == 1
    assert f'{path}:7: "transparent = source": Service [s] cannot connect from its clients' in done.stderr
    assert "CAP_NET_RAW" in done.stderr


def test_destination_without_the_right_is_for_redirected_clients(tmp_path: Path) -> None:
    require("setpriv")
    services = "client = yes\n[d]\naccept = 127.0.0.1:0\ntransparent = destination\n"
    with Culvert(tmp_path, services, prefix=POWERLESS) as daemon:
        daemon.await_log(r"LOG4\[main\]: Service \[d\] takes connections that netfilter redirected, but none")
