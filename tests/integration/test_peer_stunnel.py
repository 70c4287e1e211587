"""Debian's stunnel4 and Culvert in all four pairings, with client certificates and without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert
from .peers import (
    VERSIONS,
    Listener,
    Peers,
    PlainPeer,
    background,
    digest,
    pattern,
    read_all,
)
from .stunnel import Stunnel

MEGABYTE = 1 << 20

AUTHENTICATION = ["anonymous", "certified"]
IMPLEMENTATIONS = ["culvert", "stunnel"]


@dataclass(frozen=True)
class Crossing:
    """Where the tunnels begin, by client, server, version and authentication, and where all end."""

    entries: Mapping[tuple[str, str], int]
    backend: Listener


def server_services(certificates: Certificates, backend: int) -> str:
    text = f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    for version, authentication in itertools.product(VERSIONS, AUTHENTICATION):
        text += f"[{version}-{authentication}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{backend}\n"
        text += f"sslVersion = {version}\n"
        if authentication == "certified":
            text += f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
    return text


def client_services(certificates: Certificates, servers: Mapping[str, Mapping[str, int]]) -> str:
    text = f"client = yes\nCAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
    for implementation, ports in servers.items():
        for service, port in ports.items():
            text += f"[{implementation}-{service}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
            if service.endswith("certified"):
                text += f"cert = {certificates.client.cert}\nkey = {certificates.client.key}\n"
    return text


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Crossing]:
    """Four processes: each implementation as a server and as a client."""
    backend = Listener()
    with ExitStack() as stack:
        stack.callback(backend.close)
        text = server_services(certificates, backend.port)
        stunnel = stack.enter_context(Stunnel(tmp_path_factory.mktemp("stunnel-server"), text))
        culvert = stack.enter_context(Culvert(tmp_path_factory.mktemp("culvert-server"), text))
        servers = {
            "stunnel": stunnel.ports,
            "culvert": {service: culvert.port(service) for service in stunnel.ports},
        }
        text = client_services(certificates, servers)
        stunnel = stack.enter_context(Stunnel(tmp_path_factory.mktemp("stunnel-client"), text))
        culvert = stack.enter_context(Culvert(tmp_path_factory.mktemp("culvert-client"), text))
        entries = {}
        for service, port in stunnel.ports.items():
            entries["stunnel", service] = port
            entries["culvert", service] = culvert.port(service)
        yield Crossing(entries, backend)


@pytest.mark.parametrize("authentication", AUTHENTICATION)
@pytest.mark.parametrize("server", IMPLEMENTATIONS)
@pytest.mark.parametrize("client", IMPLEMENTATIONS)
def test_megabytes_cross_both_ways_and_end(
    *, crossing: Crossing, peers: Peers, client: str, server: str, version: str, authentication: str
) -> None:
    near = PlainPeer(peers.dial(crossing.entries[client, f"{server}-{version}-{authentication}"]))
    far = PlainPeer(crossing.backend.accept())
    up, down = pattern(3 * MEGABYTE), pattern(3 * MEGABYTE, seed=2)

    def send_and_end(peer: PlainPeer, data: bytes) -> None:
        peer.send(data)
        peer.end()

    sending = [background(send_and_end, near, up), background(far.send, down)]
    receiving = background(read_all, far)
    assert digest(receiving.result(PATIENCE)) == digest(up)
    for each in sending:
        each.result(PATIENCE)
    far.end()  # last: stunnel can cut what is still on its way to a side that has ended
    assert digest(read_all(near)) == digest(down)
