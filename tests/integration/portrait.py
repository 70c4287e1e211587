"""Takes the pictures of the status page in docs/ (`make pictures`), after a while of real traffic."""

from __future__ import annotations

import contextlib
import itertools
import math
import socket
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .certificates import Certificates
from .chromium import Chromium
from .daemon import fixed_ports
from .echo import echo_service, finish, open_tls
from .harness import Culvert
from .peers import TlsPeer, read_exactly

SECONDS = 90
"""How long there is traffic: the charts reach two minutes back."""

ANSWER = 3
"""How many times over the server gives back what it gets."""

NAMES = ("imap", "postgres", "redis")


class _Talkative(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        sock: socket.socket = self.request
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data * ANSWER)


@contextlib.contextmanager
def _backend() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Talkative) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def main(folder: Path) -> None:
    """Write the pictures into this folder."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        _backend() as backend,
        fixed_ports(len(NAMES) + 1) as ports,
    ):
        root = Path(temporary)
        for name in ("certificates", "browser"):
            (root / name).mkdir()
        certificates = Certificates(root / "certificates")
        services = "".join(
            echo_service(certificates, port, more, name=name, sink=f"connect = 127.0.0.1:{backend}")
            for name, port, more in zip(NAMES, ports, ("", "", "denyFrom = 127.0.0.66"), strict=False)
        )
        page = f"127.0.0.1:{ports[-1]}"
        with (
            Culvert(root, services, options=f"admin = {page}\n", workers=2),
            Chromium(root / "browser") as browser,
        ):
            browser.open(f"http://{page}/", 1060, 1330)
            left = _traffic(ports, certificates.ca.cert)
            _failures(ports)
            browser.await_true("document.querySelectorAll('#failures tbody tr').length === 2")
            browser.prefer("light")
            browser.screenshot(folder / "status-page.png")
            browser.prefer("dark")
            browser.resize(360, 780)
            browser.screenshot(folder / "status-page-phone.png")
            for peer in left:
                peer.close()


def _traffic(ports: list[int], trust: Path) -> list[TlsPeer]:
    """Connections that come and go, and carry more and less; those that are left."""
    opened: dict[int, list[TlsPeer]] = {port: [] for port in ports[: len(NAMES)]}
    began = time.monotonic()
    for step in itertools.count():
        passed = time.monotonic() - began
        if passed > SECONDS:
            break
        for place, (port, peers) in enumerate(opened.items()):
            wave = 1 + math.sin(passed / (7 + 4 * place) + place)
            while len(peers) < 1 + round(3 * wave):
                peers.append(open_tls(port, trust))
            while len(peers) > 1 + round(3 * wave):
                finish(peers.pop())
            size = 1 + round(20_000 * wave / (1 + place))
            peers[step % len(peers)].send(bytes(size))
            read_exactly(peers[step % len(peers)], size * ANSWER)
        time.sleep(0.1)
    return [peer for peers in opened.values() for peer in peers]


def _failures(ports: list[int]) -> None:
    """One client that speaks no TLS, and one that is not let in."""
    for source, port in (("127.0.0.9", ports[0]), ("127.0.0.66", ports[2])):
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", port), 5, (source, 0)) as sock,
        ):
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.recv(100)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
