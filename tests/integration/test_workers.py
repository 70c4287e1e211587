"""The workers: how many there are, what becomes of one that dies, and what they do not share."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import children, command, run
from .echo import echo, echo_service, finish, open_tls, say_tls
from .harness import Culvert, eventually
from .peers import TlsPeer

Start = Callable[..., Culvert]

WATCH_IMPORTS = """\
import os, pathlib, sys

def tell():
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"typer", "rich", "click"})
    pathlib.Path(os.environ["CULVERT_TEST_IMPORTS"], str(os.getpid())).write_text(" ".join(loaded))

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "click"):
            with open(pathlib.Path(os.environ["CULVERT_TEST_IMPORTS"], str(os.getpid())), "a") as told:
                told.write(f"{name} ")

os.register_at_fork(after_in_child=tell)
sys.meta_path.insert(0, Watch())
"""
"""A sitecustomize that writes, for each process, which of the terminal's packages it holds or asks for."""


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_there_are_as_many_as_asked_for(culvert: Start, certificates: Certificates, count: int) -> None:
    daemon = culvert(echo_service(certificates), workers=count)
    assert len(children(daemon.pid)) == count
    say_tls(daemon.port("echo"), certificates.ca.cert)


@pytest.mark.parametrize("option", ["workers = auto\n", ""])
def test_auto_is_one_for_each_processor(culvert: Start, certificates: Certificates, option: str) -> None:
    daemon = culvert(echo_service(certificates), workers=None, options=option)
    assert len(children(daemon.pid)) == len(os.sched_getaffinity(0))


def test_auto_counts_the_processors_that_may_be_used(culvert: Start, certificates: Certificates) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        daemon = culvert(echo_service(certificates), workers=None, options="workers = auto\n")
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(children(daemon.pid)) == 1


@pytest.mark.parametrize("value", ["-1", "many", "1.5", ""])
def test_another_number_is_refused(tmp_path: Path, certificates: Certificates, value: str) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(f"workers = {value}\n{echo_service(certificates)}")
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert f'{path}:1: "workers = {value}'.rstrip() in finished.stderr


def test_all_of_them_serve(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates, more="logId = process"), workers=2)
    workers = {str(pid) for pid in children(daemon.pid)}
    peers: list[TlsPeer] = []
    while len(peers) < 200 and not workers <= {m[1] for m in daemon.log.find(r"LOG5\[(\d+)\]: .*accepted")}:
        peers.append(open_tls(daemon.port("echo"), certificates.ca.cert))
    assert len(peers) < 200, "one worker alone takes the connections"
    for peer in peers:
        peer.close()


def kill(daemon: Culvert, worker: int) -> int:
    """Kills a worker and gives its successor."""
    before = children(daemon.pid)
    os.kill(worker, signal.SIGKILL)
    new = eventually(lambda: set(children(daemon.pid)) - set(before), "the new worker")
    assert len(new) == 1
    return new.pop()


def test_a_dead_one_is_logged_and_replaced(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates), workers=2)
    first, second = children(daemon.pid)
    successor = kill(daemon, first)
    death = daemon.await_log(rf"LOG([0-4])\[\w+\]: .*\b{first}\b")
    assert "SIGKILL" in death.string or "signal 9" in death.string or "Killed" in death.string
    assert children(daemon.pid) == sorted([second, successor])
    for _ in range(4):
        say_tls(daemon.port("echo"), certificates.ca.cert)


def test_a_death_costs_only_the_own_connections(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates, more="logId = process"), workers=2)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    echo(peer)
    serving = int(daemon.await_log(r"LOG5\[(\d+)\]: Service \[echo\] accepted")[1])
    (other,) = (pid for pid in children(daemon.pid) if pid != serving)
    kill(daemon, other)
    echo(peer)
    finish(peer)


def test_one_that_dies_again_and_again_is_replaced_more_slowly(
    culvert: Start, certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates))
    (worker,) = children(daemon.pid)
    waits = []
    for _ in range(4):
        started = time.monotonic()
        worker = kill(daemon, worker)
        waits.append(time.monotonic() - started)
    assert waits[-1] > 2 * waits[0], waits
    assert waits[-1] > 0.2, waits
    say_tls(daemon.port("echo"), certificates.ca.cert)


def test_a_daemon_without_workers_for_a_moment_ends_at_once(
    culvert: Start, certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates))
    for _ in range(3):
        kill(daemon, children(daemon.pid)[0])
    os.kill(children(daemon.pid)[0], signal.SIGKILL)
    started = time.monotonic()
    daemon.stop()
    assert time.monotonic() - started < 5


def test_their_random_numbers_differ(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates, more="logId = process"), workers=2)
    workers = len(children(daemon.pid))
    peers: list[TlsPeer] = []
    while len(peers) < 200 and len({m[1] for m in daemon.log.find(r"LOG5\[(\d+)\]: .*accepted")}) < workers:
        peers.append(open_tls(daemon.port("echo"), certificates.ca.cert))
    randoms = [peer.engine.server_random() for peer in peers]
    assert len(randoms) >= 2
    assert len(set(randoms)) == len(randoms)
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("arguments", [("run",), ("stunnel",), ()])
def test_they_never_hold_the_terminals_packages(
    tmp_path: Path, culvert: Start, certificates: Certificates, arguments: tuple[str, ...]
) -> None:
    told = tmp_path / "told"
    told.mkdir()
    (tmp_path / "sitecustomize.py").write_text(WATCH_IMPORTS)
    environment = {"PYTHONPATH": str(tmp_path), "CULVERT_TEST_IMPORTS": str(told)}
    daemon = culvert(echo_service(certificates), workers=2, command=arguments, environment=environment)
    workers = children(daemon.pid)
    for _ in range(4):
        say_tls(daemon.port("echo"), certificates.ca.cert)
    assert {pid: (told / str(pid)).read_text() for pid in workers} == dict.fromkeys(workers, "")
