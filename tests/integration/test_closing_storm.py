"""Connections that end in every order at once: each is logged once, and nothing spins or stays."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import Culvert, eventually
from .peers import VERSIONS, TruncatedError, reset
from .tunnels import Pair, Tunnels

SMALL_BUFFER = 65536

ENDED = r"LOG5\[\S+\]: Connection (closed|reset): \d+ byte\(s\) sent to TLS, \d+ byte\(s\) sent to socket"


@pytest.fixture(scope="module")
def tunnels(
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    event_loop_environment: dict[str, str],
) -> Iterator[Tunnels]:
    """Tunnels that give a half-closed connection a second."""
    folder = tmp_path_factory.mktemp("storm")
    variants = {"default": "TIMEOUTclose = 1"}
    with Tunnels(folder, certificates, variants, event_loop_environment, SMALL_BUFFER) as tunnels:
        yield tunnels


def await_rest(daemon: Culvert, connections: int, mark: int) -> None:
    """Waits until each connection has had its one last line and the daemon is idle."""
    eventually(lambda: len(daemon.log.find(ENDED, since=mark)) >= connections, "every connection's last line")
    before = daemon.cpu()
    time.sleep(0.5)
    assert daemon.cpu() - before < 0.1, "the daemon spins"
    assert len(daemon.log.find(ENDED, since=mark)) == connections
    assert len(daemon.log.find("(?i)truncated", since=mark)) <= connections


@pytest.mark.parametrize("order", ["plain-tls", "tls-plain"])
def test_both_ends_gone_at_the_same_moment(tunnels: Tunnels, role: str, version: str, order: str) -> None:
    """Neither says goodbye: TLS ends without close_notify as the plain side ends."""
    daemon = tunnels.daemon
    mark, descriptors = daemon.log.mark(), daemon.descriptors()
    for _ in range(10):
        pair = tunnels.open(role, version)
        for name in order.split("-"):
            pair.ends(name)[0].close()
    await_rest(daemon, 10, mark)
    daemon.await_descriptors(descriptors)


@pytest.mark.parametrize("attempt", range(4))
def test_stop_at_the_moment_when_connections_end(
    tmp_path: Path, certificates: Certificates, event_loop_environment: dict[str, str], attempt: int
) -> None:
    """The daemon obeys at once, whatever its connections are at."""
    with Tunnels(tmp_path, certificates, {"default": ""}, event_loop_environment) as tunnels:
        kinds = list(itertools.product(("server", "client"), VERSIONS)) * (1 + attempt)
        pairs = [tunnels.open(role, version) for role, version in kinds]
        for pair in pairs:
            pair.tls.close()
            pair.plain.close()
        started = time.monotonic()
        tunnels.daemon.stop()
        assert time.monotonic() - started < 3


def act(pair: Pair, chance: random.Random) -> None:
    """One thing that a peer may do, by chance."""
    name = chance.choice(["plain", "tls"])
    peer = pair.ends(name)[0]
    match chance.choice(["send", "send", "much", "read", "end", "fin", "reset", "close"]):
        case "send":
            peer.send(chance.randbytes(chance.randrange(1, 3000)))
        case "much":
            peer.send(bytes(200_000))
        case "read":
            peer.recv()
        case "end":
            peer.end()
        case "fin":
            peer.sock.shutdown(socket.SHUT_WR)
        case "reset":
            reset(peer.sock)
        case "close":
            peer.close()


def test_peers_that_do_anything_in_any_order(tunnels: Tunnels) -> None:
    daemon = tunnels.daemon
    mark, descriptors = daemon.log.mark(), daemon.descriptors()
    chance = random.Random(20)
    cases = list(itertools.product(("server", "client"), VERSIONS)) * 40
    for role, version in cases:
        pair = tunnels.open(role, version)
        for sock in (pair.plain.sock, pair.tls.sock):
            sock.settimeout(0.02)
        for _ in range(chance.randrange(1, 7)):
            with contextlib.suppress(OSError, SSL.Error, TruncatedError):
                act(pair, chance)
        pair.close()
    await_rest(daemon, len(cases), mark)
    daemon.await_descriptors(descriptors)
