"""A daemon with a log file of either format, and what clients of all kinds leave in it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from .certificates import Certificates
from .daemon import LogFile, command, fixed_ports
from .echo import EchoServer, echo_service
from .harness import PATIENCE, eventually
from .peers import TlsPeer, client_context, dial, reset

SERVICES = ("echo", "strict", "closed", "cifs", "client")


@dataclass(frozen=True)
class Logged:
    """A daemon at work; `ports` are those of SERVICES by name."""

    log: LogFile
    ports: dict[str, int]
    process: subprocess.Popen[bytes]

    def entries(self) -> list[dict[str, Any]]:
        """The objects of a log in JSON; each line must be one."""
        return [json.loads(line) for line in self.log.lines]

    def closings(self, port: int) -> list[dict[str, Any]]:
        """The summaries of the connections from this port of a client."""
        return [one for one in self.entries() if one.get("peer") == f"127.0.0.1:{port}"]

    def closing(self, port: int) -> dict[str, Any]:
        """The one summary of the connection from this port of a client, once it is there."""
        (found,) = eventually(lambda: self.closings(port), "the summary")
        return found

    def probe(self, service: str, *, rst: bool = False) -> int:
        """Connect and leave without a byte; the client's port."""
        sock = dial(self.ports[service])
        port: int = sock.getsockname()[1]
        if rst:
            reset(sock)
        else:
            sock.close()
        return port

    def talk(self, service: str, data: bytes) -> int:
        """Say this, which is no TLS, and wait for the end; the client's port."""
        with socket.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
            with contextlib.suppress(ConnectionError):  # a reset may be there before `connect` returns
                sock.connect(("127.0.0.1", self.ports[service]))
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        return port

    def shake_hands(self, service: str, context: SSL.Context, name: bytes | None = None) -> int:
        """A handshake that may fail, and the end; the client's port."""
        peer = TlsPeer(dial(self.ports[service]), context, server=False)
        port: int = peer.sock.getsockname()[1]
        with contextlib.suppress(SSL.Error, OSError):
            peer.handshake()
            peer.end()
            while peer.recv():
                pass
        peer.close()
        return port


@contextlib.contextmanager
def logged(folder: Path, certificates: Certificates, options: str) -> Iterator[Logged]:
    """A daemon whose log goes to a file alone."""
    ca = certificates.ca.cert
    log = LogFile(folder / "the.log")
    path = folder / "daemon.conf"
    with fixed_ports(len(SERVICES)) as numbers, EchoServer() as target:
        ports = dict(zip(SERVICES, numbers, strict=True))
        to_target = f"connect = 127.0.0.1:{target.port}"
        services = (
            echo_service(certificates, ports["echo"], sink=to_target),
            echo_service(
                certificates,
                ports["strict"],
                f"verify = 2\nCAfile = {ca}\nallowCN = client",
                name="strict",
                sink=to_target,
            ),
            echo_service(
                certificates, ports["closed"], "denyFrom = 127.0.0.0/8", name="closed", sink=to_target
            ),
            echo_service(certificates, ports["cifs"], "protocol = cifs", name="cifs", sink=to_target),
            f"[client]\nclient = yes\naccept = 127.0.0.1:{ports['client']}\n"
            f"connect = 127.0.0.1:{ports['echo']}\nCAfile = {certificates.other_ca.cert}\nverify = 2\n",
        )
        path.write_text(
            f"foreground = quiet\nsyslog = no\npid =\nworkers = 1\noutput = {log.path}\n{options}\n"
            + "".join(services)
        )
        process = subprocess.Popen(
            command("run", path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            log.wait("Accepting new connections")
            yield Logged(log, ports, process)
        finally:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode, said) == (0, b"")


def trusting(certificates: Certificates) -> SSL.Context:
    """A client that trusts the services' certificates."""
    return client_context("TLSv1.3", trust=certificates.ca.cert)
