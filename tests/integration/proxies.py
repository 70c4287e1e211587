"""HAProxy and nginx as peers of PROXY headers, on sockets that they inherit: the kernel chose the ports."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from OpenSSL import SSL

from .harness import PATIENCE, LogLines, require
from .outcomes import WELCOME
from .peers import PlainPeer, TlsPeer, TruncatedError, read_all

CLIENT = "127.0.0.9"
"""From where the clients of these tests come: a proxy in front of Culvert has another address."""

REQUEST = b"GET / HTTP/1.0\r\n\r\n"

NGINX_MODULES = Path("/usr/lib/nginx/modules")


class Listening:
    """Ports to hand to a server before it is started: who connects waits until it accepts."""

    def __init__(self, names: Sequence[str]) -> None:
        self.sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in names}

    def port(self, name: str) -> int:
        """Where it listens."""
        return int(self.sockets[name].getsockname()[1])

    def fd(self, name: str) -> int:
        """The descriptor that the server inherits."""
        return self.sockets[name].fileno()

    def __enter__(self) -> Listening:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sock in self.sockets.values():
            sock.close()


class _Server:
    """A program in the foreground, with its output."""

    def __init__(self, command: Sequence[str | Path], listening: Listening, **environment: str) -> None:
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[sock.fileno() for sock in listening.sockets.values()],
            env={**os.environ, **environment},
        )
        assert self._process.stdout is not None
        self.log = LogLines(self._process.stdout)

    def __enter__(self) -> _Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()  # not killed: nginx has a worker
        self._process.wait(PATIENCE)
        self.log.wait_end()


class HAProxy(_Server):
    """HAProxy with these sections; `defaults` has the timeouts already."""

    def __init__(self, folder: Path, sections: str, listening: Listening) -> None:
        path = folder / "haproxy.cfg"
        path.write_text(
            # It refuses a descriptor whose number is beyond what it reckons with.
            "global\n maxconn 4000\n nbthread 1\n"
            "defaults\n timeout connect 10s\n timeout client 20s\n timeout server 20s\n" + sections
        )
        super().__init__((require("haproxy"), "-db", "-f", path), listening)


class Nginx(_Server):
    """nginx with this text behind `events`; the ports of `listening` are its own."""

    def __init__(self, folder: Path, text: str, listening: Listening, modules: Sequence[str] = ()) -> None:
        path = folder / "nginx.conf"
        loaded = "".join(f"load_module {require_module(name)};\n" for name in modules)
        path.write_text(
            f"daemon off; worker_processes 1; error_log stderr; pid {folder}/nginx.pid;\n{loaded}"
            f"events {{ worker_connections 64; }}\n{text}"
        )
        inherited = "".join(f"{sock.fileno()};" for sock in listening.sockets.values())
        command = (require("nginx"), "-p", folder, "-e", "stderr", "-c", path)
        super().__init__(command, listening, NGINX=inherited)


def require_module(name: str) -> Path:
    """A module of nginx; without it the test is skipped, or fails where CULVERT_REQUIRE_PEERS=1."""
    path = NGINX_MODULES / name
    if not path.exists():
        require(f"nginx's {name}")
    return path


def temporaries(folder: Path) -> str:
    """Where nginx's `http` keeps what it writes."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "access_log off; " + "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)


def come(port: int, host: str = "127.0.0.1", source: str = CLIENT) -> socket.socket:
    """A TCP client at the address of these clients; it may have been refused, and reset, by now."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(PATIENCE)
    sock.bind((source, 0))
    error = sock.connect_ex((host, port))
    if error not in (0, errno.ECONNRESET):
        sock.close()
        raise OSError(error, os.strerror(error))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def shown(sock: socket.socket) -> str:
    """A client's own address, as the servers show it."""
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"


def ask(sock: socket.socket, context: SSL.Context | None = None, name: str = "", first: bytes = b"") -> str:
    """What a server answers to an HTTP request, its last line: in TLS where a context is given.

    `first` goes out in clear, in front of everything else.
    """
    sock.sendall(first)
    peer: TlsPeer | PlainPeer = PlainPeer(sock)
    if context is not None:
        peer = TlsPeer(sock, context, server=False, name=name)
        peer.handshake()
    peer.send(REQUEST)
    answer = read_all(peer).decode()
    peer.close()
    return answer.splitlines()[-1]


def greeted(sock: socket.socket, context: SSL.Context, name: str = "", first: bytes = b"") -> bool:
    """Whether a client comes through to a backend that says WELCOME; `first` goes out in clear before."""
    peer = TlsPeer(sock, context, server=False, name=name)
    try:
        sock.sendall(first)
        peer.handshake()
        return peer.recv() == WELCOME
    except (OSError, TruncatedError):
        return False
    finally:
        peer.close()


def fields(header: bytes) -> dict[int, bytes]:
    """The fields of a header of version 2 with IPv4 addresses, those inside of its TLS field among them."""
    assert header[:14] == b"\r\n\r\n\x00\r\nQUIT\n\x21\x11", header
    assert len(header) == 16 + int.from_bytes(header[14:16], "big")
    found = _fields(header[28:])
    if 0x20 in found:
        found |= _fields(found[0x20][5:])
    return found


def _fields(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        size = int.from_bytes(data[1:3], "big")
        assert len(data) >= 3 + size
        found[data[0]] = data[3 : 3 + size]
        data = data[3 + size :]
    return found


def services(sections: Mapping[str, str], credentials: str) -> str:
    """TLS servers on ports of 127.0.0.1, by name and options."""
    return "".join(
        f"[{name}]\naccept = 127.0.0.1:0\n{credentials}{text}\n" for name, text in sections.items()
    )
