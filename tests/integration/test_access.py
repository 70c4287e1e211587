"""allowFrom and denyFrom: who is not let in costs no handshake, also where another service takes him over."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import Culvert
from .outcomes import WELCOME, Sayer
from .peers import client_context
from .proxies import CLIENT, come, greeted, services

Start = Callable[..., Culvert]

OTHER = "127.0.0.10"


@dataclass(frozen=True)
class World:
    """A daemon whose services let in some clients."""

    daemon: Culvert
    context: SSL.Context

    def greets(self, service: str, source: str, name: str = "") -> bool:
        """Whether a client from this address comes through to the backend."""
        return greeted(come(self.daemon.port(service), source=source), self.context, name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("access")
    leaf = certificates.server
    credentials = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    with ExitStack() as stack:
        backend = stack.enter_context(Sayer(WELCOME))
        connect = f"connect = 127.0.0.1:{backend.port}\n"
        sections = {
            "allowed": f"{connect}allowFrom = 192.0.2.0/24, {CLIENT}",
            "denied": f"{connect}denyFrom = {CLIENT}",
            "both": f"{connect}allowFrom = 127.0.0.0/8\ndenyFrom = {CLIENT}",
            "primary": connect,
        }
        text = services(sections, credentials) + (
            f"[second]\nsni = primary:b.example\n{connect}denyFrom = {CLIENT}\n{credentials}"
            f"[mapped]\naccept = :::0\n{connect}denyFrom = {CLIENT}\n{credentials}"
            f"[unix]\naccept = {folder}/open\n{connect}allowFrom = unix\n{credentials}"
            f"[shut]\naccept = {folder}/shut\n{connect}denyFrom = unix\n{credentials}"
        )
        daemon = stack.enter_context(Culvert(folder, text, options="denyFrom = 127.0.0.11\n"))
        yield World(daemon, client_context(trust=certificates.ca.cert))


@pytest.mark.parametrize(
    ("service", "source", "name", "expected"),
    [
        ("allowed", CLIENT, "", True),
        ("allowed", OTHER, "", False),
        ("denied", CLIENT, "", False),
        ("denied", OTHER, "", True),
        ("both", CLIENT, "", False),
        ("both", OTHER, "", True),
        ("denied", "127.0.0.11", "", False),
        ("primary", "127.0.0.11", "", False),
        ("primary", CLIENT, "a.example", True),
        ("primary", CLIENT, "b.example", False),
        ("primary", OTHER, "b.example", True),
    ],
)
def test_who_comes_in(world: World, service: str, source: str, name: str, expected: bool) -> None:
    assert world.greets(service, source, name) is expected


def test_a_client_of_ipv4_on_a_socket_of_ipv6(world: World) -> None:
    """Its address is mapped there, and what is denied is the address that it has."""
    assert not world.greets("mapped", CLIENT)
    assert world.greets("mapped", OTHER)


@pytest.mark.parametrize(("path", "expected"), [("open", True), ("shut", False)])
def test_clients_of_a_unix_socket(world: World, path: str, expected: bool) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(world.daemon.folder / path))
    assert greeted(sock, world.context) is expected


def test_a_refusal_is_one_line_and_no_handshake(culvert: Start, certificates: Certificates) -> None:
    leaf = certificates.server
    daemon = culvert(
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/true\ndenyFrom = {CLIENT}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    )
    mark = daemon.log.mark()
    sock = come(daemon.port("s"))
    with contextlib.suppress(OSError):
        assert sock.recv(1) == b""
    sock.close()
    line = rf"LOG4\[\S+\]: Service \[s\] refused connection from {CLIENT}:\d+: denyFrom names its address$"
    daemon.await_log(line, since=mark)
    assert len(daemon.log.lines) == mark + 1
