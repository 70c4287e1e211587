"""Clients that wait to be accepted while a reload moves their address to another socket."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from .certificates import Certificates
from .daemon import children, fixed_ports
from .echo import GREETING, trusting
from .harness import Culvert
from .peers import TlsPeer, dial, read_exactly

WAITING = 12
"""More than a worker accepts at once."""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same over reloads."""
    with fixed_ports(1) as ports:
        yield ports[0]


def services(certificates: Certificates, accept: str) -> str:
    """A service that gives back what it gets."""
    leaf = certificates.server
    return f"[echo]\naccept = {accept}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n"


@pytest.mark.parametrize("workers", [0, 1])
def test_all_of_them_are_served(
    culvert: Callable[..., Culvert], certificates: Certificates, port: int, workers: int
) -> None:
    daemon = culvert(services(certificates, f"127.0.0.1:{port}"), workers=workers)
    [serving] = children(daemon.pid) or [daemon.pid]
    os.kill(serving, signal.SIGSTOP)
    try:
        waiting = [dial(port) for _ in range(WAITING)]
        mark = daemon.reload(services(certificates, str(port)))
        if workers:
            daemon.await_log("Accepting new connections", since=mark)
    finally:
        os.kill(serving, signal.SIGCONT)
    for sock in waiting:
        peer = TlsPeer(sock, trusting(certificates.ca.cert), server=False)
        peer.handshake()
        peer.send(GREETING)
        assert read_exactly(peer, len(GREETING)) == GREETING
        peer.close()
