"""ident: the client's own machine must name the user, before the handshake (RFC 1413)."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .daemon import needs_root
from .harness import Culvert
from .outcomes import WELCOME, Sayer
from .peers import client_context
from .proxies import come, greeted, services

pytestmark = needs_root

ANSWERS = {
    "127.0.7.1": b"{0} , {1} : USERID : UNIX : joe\r\n",
    "127.0.7.2": b"{0} , {1} : USERID : UNIX : jane\r\n",
    "127.0.7.3": b"{0} , {1} : ERROR : HIDDEN-USER\r\n",
    "127.0.7.4": b"{1} , {0} : USERID : UNIX : joe\r\n",
    "127.0.7.5": b"",
    "127.0.7.6": b"x" * 2000,
    "127.0.7.7": b"{0} , {1} : USERID : UNIX : joe",
    "127.0.7.8": b"{0},{1}:USERID:UNIX:\x1b[2Jjoe\x07\r\n",
}
"""What the ident server of each client says; `{0}` and `{1}` are the ports that it was asked for."""

SILENT = "127.0.7.9"
NOBODY_THERE = "127.0.7.10"


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Ident)
        question = self.rfile.readline(1000)
        server.asked.append((self.client_address[0], question))
        host = self.request.getsockname()[0]
        if host == SILENT:
            with contextlib.suppress(OSError):
                self.rfile.read(1)  # until it is given up
            return
        ports = [port.strip() for port in question.split(b",")]
        answer = ANSWERS[host].replace(b"{0}", ports[0]).replace(b"{1}", ports[1])
        self.wfile.write(answer)


class Ident(socketserver.ThreadingTCPServer):
    """An ident server of one machine."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str) -> None:
        super().__init__((host, 113), _Answer)
        self.asked: list[tuple[str, bytes]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.shutdown()
        self.server_close()


@dataclass(frozen=True)
class World:
    """A daemon that lets in joe alone, and the machines of its clients."""

    daemon: Culvert
    context: SSL.Context
    machines: dict[str, Ident]

    def lets_in(self, service: str, source: str) -> bool:
        """Whether a client from this machine comes through."""
        return greeted(come(self.daemon.port(service), source=source), self.context)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    leaf = certificates.server
    with ExitStack() as stack:
        machines = {host: stack.enter_context(Ident(host)) for host in (*ANSWERS, SILENT)}
        backend = stack.enter_context(Sayer(WELCOME))
        options = f"connect = 127.0.0.1:{backend.port}\nident = joe\nTIMEOUTconnect = 1"
        names = ["joe", *map(_service, (*machines, NOBODY_THERE))]
        text = services(dict.fromkeys(names, options), f"cert = {leaf.cert}\nkey = {leaf.key}\n")
        daemon = stack.enter_context(Culvert(tmp_path_factory.mktemp("ident"), text))
        yield World(daemon, client_context(trust=certificates.ca.cert), machines)


def _service(host: str) -> str:
    """Each machine's clients have a service of their own: its refusals are logged at once."""
    return f"s{int(ip_address(host)) & 255}"


def test_the_right_user_comes_in(world: World) -> None:
    mark = world.daemon.log.mark()
    assert world.lets_in("joe", "127.0.7.1")
    world.daemon.await_log(r'ident: the user is "joe"', since=mark)


def test_the_question_comes_from_the_address_that_the_client_connected_to(world: World) -> None:
    machine = world.machines["127.0.7.1"]
    machine.asked.clear()
    sock = come(world.daemon.port("joe"), source="127.0.7.1")
    theirs, ours = sock.getsockname()[1], sock.getpeername()[1]
    assert greeted(sock, world.context)
    assert machine.asked == [("127.0.0.1", f"{theirs} , {ours}\r\n".encode())]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("127.0.7.2", 'names "jane", not "joe"'),
        ("127.0.7.3", "answers HIDDEN-USER"),
        ("127.0.7.4", "gave an answer that belongs to no question of ours"),
        ("127.0.7.5", "closed the connection without an answer"),
        ("127.0.7.6", "sent an answer of more than 1000 bytes"),
        ("127.0.7.7", "closed the connection without an answer"),
        ("127.0.7.8", 'names ".[2Jjoe.", not "joe"'),
        (SILENT, "gave no answer within 1 s"),
        (NOBODY_THERE, "cannot be asked: Connection refused"),
    ],
)
def test_who_is_not_named_does_not_come_in(world: World, source: str, reason: str) -> None:
    mark = world.daemon.log.mark()
    assert not world.lets_in(_service(source), source)
    found = world.daemon.await_log(r"refused connection from (\S+): its ident server (.*)", since=mark)
    assert found[1].startswith(f"{source}:")
    assert found[2] == reason
