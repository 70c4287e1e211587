"""A daemon of services that fail, each in its way, with words of hostile peers in the reasons."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .admin_client import Admin
from .certificates import Certificates
from .daemon import fixed_ports
from .echo import EchoServer, echo_service, open_tls
from .harness import Culvert, eventually
from .peers import TlsPeer, dial

MARKUP = "<img src=x onerror=alert(1)>"
HOSTILE = b"554 " + MARKUP.encode() + b" \x1b[31m\xe2\x80\xae\r\n"
"""What a mail server says, with what a terminal, a page and a reader could take for something else."""

ODD_NAME = "a<b>&amp;'\"</b>"
"""A service's name that is markup if it is not text."""


class _Refusing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        sock: socket.socket = self.request
        with contextlib.suppress(OSError):
            sock.sendall(HOSTILE)
            sock.recv(4096)


class Failing:
    """The services: `echo` works, `closed` refuses everybody, `dead` leads nowhere, `mail` to a hostile
    server; ODD_NAME is another that works.
    """

    def __init__(self, daemon: Culvert, admin: Admin, trust: Path) -> None:
        self.daemon = daemon
        self.admin = admin
        self._trust = trust

    def knock(self, service: str, data: bytes = b"") -> None:
        """One client that says this in clear, and takes what comes."""
        with contextlib.suppress(ConnectionError), dial(self.daemon.port(service)) as sock:
            sock.sendall(data)
            while sock.recv(4096):
                pass

    def open(self, service: str = "echo") -> TlsPeer:
        """One client that shakes hands and stays."""
        return open_tls(self.daemon.port(service), self._trust)

    def of(self, service: str) -> list[dict[str, Any]]:
        """The failures of a service, once there is one."""
        return eventually(
            lambda: [
                one for one in self.admin.ask("/status").document["failures"] if one["service"] == service
            ],
            f"a failure of {service}",
        )


@contextlib.contextmanager
def failing(
    folder: Path, certificates: Certificates, workers: int, options: str | None = None
) -> Iterator[Failing]:
    """Run it. `options` say where its endpoint is; by default that is a Unix socket."""
    with (
        EchoServer() as backend,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refusing) as hostile,
        fixed_ports(1) as dead,
    ):
        hostile.daemon_threads = True
        threading.Thread(target=hostile.serve_forever, args=(0.05,), daemon=True).start()
        to_echo = f"connect = 127.0.0.1:{backend.port}"
        services = (
            echo_service(certificates, name="echo", sink=to_echo)
            + echo_service(certificates, name=ODD_NAME, sink=to_echo)
            + echo_service(certificates, more="denyFrom = 127.0.0.0/8", name="closed", sink=to_echo)
            + echo_service(certificates, name="dead", sink=f"connect = 127.0.0.1:{dead[0]}")
            + "[mail]\nclient = yes\naccept = 127.0.0.1:0\nprotocol = smtp\n"
            + f"connect = 127.0.0.1:{hostile.server_address[1]}\n"
        )
        where = f"admin = {folder / 'admin'}\n" if options is None else options
        daemon = Culvert(folder, services, options=where, workers=workers)
        with daemon:
            yield Failing(daemon, Admin(folder / "admin"), certificates.ca.cert)
        hostile.shutdown()
