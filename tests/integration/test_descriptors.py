"""Descriptors running out: accepting pauses and resumes, says so once in a while, and nothing dies."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .daemon import await_footprint, children, footprint
from .echo import EchoServer, echo, finish, open_plain, open_tls, say_tls
from .harness import Culvert, eventually, open_descriptors
from .peers import TruncatedError

Start = Callable[..., Culvert]

COMPLAINT = r"LOG[2-4]\[\w+\]: .*(Too many open files|[Oo]ut of (file )?descriptors)"


@pytest.fixture
def backend() -> Iterator[EchoServer]:
    """What the tunnels lead to."""
    with EchoServer() as server:
        yield server


def services(certificates: Certificates, target: int) -> str:
    """A service to the backend, and one to a program."""
    leaf = certificates.server
    credentials = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    return (
        f"[echo]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{target}\n{credentials}"
        f"[cat]\naccept = 127.0.0.1:0\nexec = /bin/cat\n{credentials}"
    )


@contextlib.contextmanager
def bounded(pid: int, room: int) -> Iterator[None]:
    """The process may open only so many descriptors more than it holds."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names are all
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + room, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_accepting_pauses_and_resumes(
    culvert: Start, certificates: Certificates, backend: EchoServer
) -> None:
    trust = certificates.ca.cert
    daemon = culvert(services(certificates, backend.port))
    (worker,) = children(daemon.pid)
    say_tls(daemon.port("echo"), trust)
    say_tls(daemon.port("cat"), trust)
    before = footprint(daemon.pid)
    with bounded(worker, 12):
        served = [open_tls(daemon.port("echo"), trust) for _ in range(2)]
        for peer in served:
            echo(peer)
        waiting = [open_plain(daemon.port("echo")) for _ in range(30)]
        daemon.await_log(COMPLAINT)
        used = daemon.cpu()
        started = time.monotonic()
        for peer in served:
            echo(peer)
        eventually(lambda: time.monotonic() - started > 1.5, "a while")
        assert daemon.cpu() - used < 0.75, "the worker spins"
        assert len(daemon.log.find(COMPLAINT)) < 15, "the log is flooded"
        assert children(daemon.pid) == [worker]
        for idle in waiting:
            idle.close()
        for _ in range(3):
            say_tls(daemon.port("echo"), trust)
        for peer in served:
            echo(peer)
            finish(peer)
    say_tls(daemon.port("cat"), trust)
    await_footprint(daemon.pid, before)


def test_those_who_waited_are_served(culvert: Start, certificates: Certificates, backend: EchoServer) -> None:
    trust = certificates.ca.cert
    daemon = culvert(services(certificates, backend.port))
    (worker,) = children(daemon.pid)
    say_tls(daemon.port("echo"), trust)
    before = footprint(daemon.pid)
    with bounded(worker, 8):
        hogs = [open_plain(daemon.port("echo")) for _ in range(20)]
        daemon.await_log(COMPLAINT)
        for hog in hogs:
            hog.close()
        eventually(lambda: open_descriptors([worker]) < before.descriptors + 8, "room", 10)
        say_tls(daemon.port("echo"), trust)
    await_footprint(daemon.pid, before)


def test_no_descriptor_for_the_backend_or_the_program(
    culvert: Start, certificates: Certificates, backend: EchoServer
) -> None:
    trust = certificates.ca.cert
    daemon = culvert(services(certificates, backend.port))
    (worker,) = children(daemon.pid)
    for service in ("echo", "cat"):
        say_tls(daemon.port(service), trust)
    before = footprint(daemon.pid)
    refused = 0
    for service in ("echo", "cat"):
        for room in range(1, 4):
            await_footprint(daemon.pid, before)  # one that still closes leaves its room to the next
            with bounded(worker, room):
                try:
                    say_tls(daemon.port(service), trust)
                except (ConnectionError, SSL.Error, TruncatedError, AssertionError, TimeoutError):
                    refused += 1
            say_tls(daemon.port(service), trust)
    assert refused
    assert children(daemon.pid) == [worker]
    await_footprint(daemon.pid, before)


def test_the_supervisor_without_descriptors_keeps_what_runs(
    culvert: Start, certificates: Certificates, backend: EchoServer
) -> None:
    trust = certificates.ca.cert
    daemon = culvert(services(certificates, backend.port), workers=2)
    workers = children(daemon.pid)
    with bounded(daemon.pid, 0):
        mark = daemon.reload(services(certificates, backend.port) + "; changed\n")
        daemon.await_log(r"LOG3\[\w+\]: ", since=mark)
        say_tls(daemon.port("echo"), trust)
        assert children(daemon.pid) == workers
    mark = daemon.reload(services(certificates, backend.port))
    daemon.await_log("Accepting new connections", since=mark)
    say_tls(daemon.port("echo"), trust)
