"""Connections of before a reload: with `workers = 0`, the one process serves them beside the current ones."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LogFile, fixed_ports
from .echo import echo, echo_service, finish, open_tls
from .harness import Culvert, eventually
from .peers import TlsPeer, read_all

Start = Callable[..., Culvert]
CLOSED = r"LOG5\[{}\]: Connection closed: \d+ byte"


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same over reloads."""
    with fixed_ports(1) as (port,):
        yield port


def reload(daemon: Culvert, services: str) -> None:
    """Loads the configuration anew and waits until it is in force."""
    mark = daemon.reload(services)
    daemon.await_log("Accepting new connections", since=mark)


def identity(daemon: Culvert, peer: TlsPeer) -> str:
    """What stands in brackets in the log lines of this client's connection."""
    port = peer.sock.getsockname()[1]
    return daemon.await_log(rf"LOG5\[(\S+)\]: .*accepted connection from 127\.0\.0\.1:{port}$").group(1)


@pytest.mark.parametrize("workers", [0, 1])
def test_all_of_them_are_ended_with_the_daemon(
    culvert: Start, certificates: Certificates, port: int, workers: int
) -> None:
    services = echo_service(certificates, port)
    daemon = culvert(services, workers=workers)
    peers = []
    for _ in range(3):
        peers.append(open_tls(port, certificates.ca.cert))
        echo(peers[-1])
        reload(daemon, services)
    names = [identity(daemon, peer) for peer in peers]
    daemon.stop()
    for name in names:
        assert len(daemon.log.find(CLOSED.format(name))) == 1
    assert not daemon.log.find("pending|never retrieved|fault of culvert")
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_their_programs_are_hung_up_with_the_daemon(
    culvert: Start, certificates: Certificates, port: int, workers: int
) -> None:
    services = echo_service(certificates, port, sink="exec = /bin/sleep\nexecArgs = sleep 1000")
    daemon = culvert(services, workers=workers)
    peer = open_tls(port, certificates.ca.cert)
    eventually(lambda: len(daemon.tree()) == 2 + workers, "the program")
    reload(daemon, services)
    daemon.stop()  # which finds every process that is left
    peer.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reload_that_is_followed_by_the_end_at_once(
    culvert: Start, certificates: Certificates, port: int, workers: int
) -> None:
    services = echo_service(certificates, port)
    daemon = culvert(services, workers=workers)
    peer = open_tls(port, certificates.ca.cert)
    echo(peer)
    name = identity(daemon, peer)
    daemon.process.send_signal(signal.SIGSTOP)
    daemon.send_signal(signal.SIGHUP)
    daemon.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGCONT)
    daemon.stop()
    assert len(daemon.log.find(CLOSED.format(name))) == 1
    assert not daemon.log.find("pending|never retrieved|fault of culvert")
    peer.close()


def test_their_log_is_opened_anew_too(
    culvert: Start, certificates: Certificates, port: int, tmp_path: Path
) -> None:
    log, rotated = LogFile(tmp_path / "the.log"), LogFile(tmp_path / "the.log.1")
    services = echo_service(certificates, port)
    daemon = culvert(services, workers=0, options=f"output = {log.path}\n")
    peer = open_tls(port, certificates.ca.cert)
    echo(peer)
    name = identity(daemon, peer)
    reload(daemon, services)
    log.path.rename(rotated.path)
    daemon.send_signal(signal.SIGUSR1)
    eventually(log.path.exists, "the new log")
    before = rotated.mark()
    finish(peer)
    log.wait(CLOSED.format(name))
    assert rotated.mark() == before


def test_they_keep_the_log_of_their_own_configuration_to_their_end(
    culvert: Start, certificates: Certificates, port: int, tmp_path: Path
) -> None:
    old, new = LogFile(tmp_path / "old.log"), LogFile(tmp_path / "new.log")
    services = echo_service(certificates, port)
    daemon = culvert(f"output = {old.path}\n{services}", workers=0)
    peer = open_tls(port, certificates.ca.cert)
    echo(peer)
    name = identity(daemon, peer)
    reload(daemon, f"output = {new.path}\n{services}")
    finish(peer)
    old.wait(CLOSED.format(name))
    eventually(lambda: not holds(daemon.pid, old.path), "the old log's end")
    assert holds(daemon.pid, new.path)
    assert not new.find(rf"\[{name}\]")


def holds(pid: int, path: Path) -> bool:
    """Whether a process has this file open."""
    return any(entry.resolve() == path for entry in Path(f"/proc/{pid}/fd").iterdir())


def test_each_connection_that_reads_to_its_end_gets_all(
    culvert: Start, certificates: Certificates, port: int
) -> None:
    services = echo_service(certificates, port)
    daemon = culvert(services, workers=0)
    peer = open_tls(port, certificates.ca.cert)
    echo(peer)
    for _ in range(3):
        reload(daemon, services)
    peer.send(b"the last word\n")
    peer.end()
    assert read_all(peer) == b"the last word\n"
    peer.close()
