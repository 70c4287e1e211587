"""SIGHUP under load: no connection is lost, neither one that lives nor one that arrives."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import Detached, Jail, children, fixed_ports, needs_root
from .echo import EchoServer, open_plain, open_tls, say_plain, say_tls
from .harness import PATIENCE, Culvert, eventually
from .peers import Listener, Peer, PlainPeer, background, digest, pattern, read_all

Start = Callable[..., Culvert]

MEGABYTE = 1 << 20


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Ports that stay the same over reloads."""
    with fixed_ports(2) as ports:
        yield ports


def tunnel(certificates: Certificates, server: int, client: int, target: int) -> str:
    """A server service in front of `target`, and a client service in front of the server service."""
    leaf, ca = certificates.server, certificates.ca.cert
    return (
        f"[server]\naccept = 127.0.0.1:{server}\nconnect = 127.0.0.1:{target}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
        f"[client]\nclient = yes\naccept = 127.0.0.1:{client}\nconnect = 127.0.0.1:{server}\n"
        f"CAfile = {ca}\nverifyChain = yes\ncheckHost = localhost\n"
    )


class Arrivals:
    """Clients that connect, say a line and leave, one after the other, until told to end."""

    def __init__(self, *visits: Callable[[], None]) -> None:
        self.counts = [0] * len(visits)
        self._ended = threading.Event()
        self._clients = [background(self._visit, number, visit) for number, visit in enumerate(visits)]

    def _visit(self, number: int, visit: Callable[[], None]) -> None:
        while not self._ended.is_set():
            visit()
            self.counts[number] += 1

    def await_more(self, count: int) -> None:
        """Waits until each client has been served `count` times more, or one has failed."""
        goals = [done + count for done in self.counts]

        def reached() -> bool:
            return all(c >= g for c, g in zip(self.counts, goals, strict=True)) or self.failed()

        eventually(reached, "more clients")

    def failed(self) -> bool:
        """Whether a client was not served."""
        return any(client.done() and not self._ended.is_set() for client in self._clients)

    def end(self) -> None:
        """Ends the clients; raises what a client met."""
        self._ended.set()
        for client in self._clients:
            client.result(PATIENCE)


def reload(daemon: Culvert) -> None:
    """Loads the configuration anew and waits until that is done."""
    mark = daemon.log.mark()
    daemon.send_signal(signal.SIGHUP)
    daemon.await_log("Accepting new connections", since=mark)


def test_no_arriving_client_is_refused(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    server, client = ports
    trust = certificates.ca.cert
    with EchoServer() as backend:
        daemon = culvert(tunnel(certificates, server, client, backend.port), workers=2)
        arrivals = Arrivals(
            lambda: say_tls(server, trust),
            lambda: say_tls(server, trust),
            lambda: say_plain(client),
            lambda: say_plain(client),
        )
        try:
            for _ in range(15):
                reload(daemon)
                arrivals.await_more(2)
        finally:
            arrivals.end()
    assert min(arrivals.counts) >= 30
    eventually(lambda: len(children(daemon.pid)) == 2, "the old workers' end")


def transfer(sender: Peer, receiver: Peer, data: bytes, steps: threading.Semaphore) -> bytes:
    """Sends `data` by pieces, one for each release of `steps`, and gives what arrived."""
    received = background(read_all, receiver)
    pieces = 8
    size = len(data) // pieces
    for start in range(0, len(data), size):
        assert steps.acquire(timeout=PATIENCE)
        sender.send(data[start : start + size])
    sender.end()
    return received.result(PATIENCE)


@pytest.mark.parametrize("direction", ["to the backend", "from the backend"])
def test_no_living_transfer_is_cut(
    culvert: Start, certificates: Certificates, ports: list[int], direction: str
) -> None:
    server, client = ports
    target = Listener()
    daemon = culvert(tunnel(certificates, server, client, target.port), workers=2)
    pairs: list[tuple[Peer, PlainPeer]] = []
    for _ in range(2):
        outer = open_tls(server, certificates.ca.cert)
        pairs.append((outer, PlainPeer(target.accept())))
        plain = open_plain(client)
        pairs.append((plain, PlainPeer(target.accept())))
    steps = [threading.Semaphore(2) for _ in pairs]
    sent = [pattern(4 * MEGABYTE, seed) for seed in range(len(pairs))]
    running = []
    for (outer_end, backend), data, step in zip(pairs, sent, steps, strict=True):
        ends = (outer_end, backend) if direction == "to the backend" else (backend, outer_end)
        running.append(background(transfer, *ends, data, step))
    for _ in range(6):
        reload(daemon)
        for step in steps:
            step.release()
    arrived = [task.result(PATIENCE) for task in running]
    assert [digest(data) for data in arrived] == [digest(data) for data in sent]
    for outer_end, backend in pairs:
        outer_end.close()
        backend.close()
    target.close()
    eventually(lambda: len(children(daemon.pid)) == 2, "the old workers' end")


@needs_root
def test_the_jail_changes_nothing(tmp_path: Path, certificates: Certificates, ports: list[int]) -> None:
    server, client = ports
    trust = certificates.ca.cert
    jail = Jail(tmp_path)
    with EchoServer() as backend:
        text = jail.options + "workers = 2\n" + tunnel(certificates, server, client, backend.port)
        with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
            living = open_plain(client)
            arrivals = Arrivals(lambda: say_tls(server, trust), lambda: say_plain(client))
            try:
                for _ in range(8):
                    mark = daemon.log.mark()
                    daemon.send_signal(signal.SIGHUP)
                    daemon.log.wait("Accepting new connections", since=mark)
                    arrivals.await_more(2)
            finally:
                arrivals.end()
            living.send(b"still here\n")
            living.end()
            assert read_all(living) == b"still here\n"
            living.close()
            assert jail.pid_file.read_text() == f"{daemon.pid}\n"


def test_a_dying_worker_and_a_reload_at_once(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    server, client = ports
    with EchoServer() as backend:
        daemon = culvert(tunnel(certificates, server, client, backend.port), workers=2)
        for _ in range(5):
            worker = children(daemon.pid)[0]
            mark = daemon.log.mark()
            daemon.send_signal(signal.SIGHUP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            daemon.await_log("Accepting new connections", since=mark)
        eventually(lambda: len(children(daemon.pid)) == 2, "two workers")
        say_tls(server, certificates.ca.cert)
        say_plain(client)
