"""SIGHUP with a good configuration: what changes, what stays, and what the log says."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from .certificates import Certificates, Leaf
from .daemon import answers, children, fixed_ports
from .echo import EchoServer, echo, finish, open_tls, say_tls, trusting
from .harness import PATIENCE, Culvert, eventually
from .peers import TlsPeer

Start = Callable[..., Culvert]

BOUND = r"LOG6\[\w+\]: Service \[(\w+)\] \(FD=\d+\) bound to (\S+)"


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Ports that stay the same over reloads."""
    with fixed_ports(3) as ports:
        yield ports


def service(name: str, port: int, leaf: Leaf, sink: str = "exec = /bin/cat") -> str:
    """A service that gives back what it gets."""
    return f"[{name}]\naccept = 127.0.0.1:{port}\n{sink}\ncert = {leaf.cert}\nkey = {leaf.key}\n"


def reload(daemon: Culvert, services: str | None = None) -> int:
    """Loads the configuration anew, waits until that is done, and gives the log's mark from before."""
    mark = daemon.log.mark()
    if services is not None:
        daemon.configure(services)
    daemon.send_signal(signal.SIGHUP)
    daemon.await_log("Accepting new connections", since=mark)
    return mark


def await_workers(daemon: Culvert, count: int) -> None:
    """Waits until there are so many workers, of all generations."""
    eventually(lambda: len(children(daemon.pid)) == count, f"{count} workers")


def certificate_of(peer: TlsPeer) -> x509.Certificate:
    """The certificate that the daemon showed."""
    shown = peer.engine.get_peer_certificate()
    assert shown is not None
    return shown.to_cryptography()


def test_each_address_is_announced_once_and_then_accepting(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    services = service("one", ports[0], certificates.server) + service("two", ports[1], certificates.server)
    daemon = culvert(services, workers=2)
    for _ in range(3):
        mark = reload(daemon)
        say_tls(ports[0], certificates.ca.cert)
        daemon.await_log("Connection closed", since=mark)
        lines = daemon.log.lines[mark:]
        told = [
            text
            for line in lines
            if (text := re.sub(r"^.*LOG\d\[\w+\]: ", "", line))
            and re.match(r"Reading conf|Configuration|Accepting|Service \[\w+\] \(FD", text)
        ]
        told = [re.sub(r"FD=\d+", "FD=N", text) for text in told]
        assert told == [
            f"Reading configuration from file {daemon.path}",
            "Configuration successful",
            f"Service [one] (FD=N) bound to 127.0.0.1:{ports[0]}",
            f"Service [two] (FD=N) bound to 127.0.0.1:{ports[1]}",
            "Accepting new connections",
        ]


def test_services_come_and_go(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    leaf, trust = certificates.server, certificates.ca.cert
    stays, goes, comes = ports
    daemon = culvert(service("stays", stays, leaf) + service("goes", goes, leaf))
    reload(daemon, service("stays", stays, leaf) + service("comes", comes, leaf))
    say_tls(stays, trust)
    say_tls(comes, trust)
    assert not answers(goes)
    reload(daemon, service("stays", stays, leaf) + service("goes", goes, leaf))
    say_tls(goes, trust)
    assert not answers(comes)


def test_a_connection_of_a_service_that_goes_lives_on(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    leaf, trust = certificates.server, certificates.ca.cert
    daemon = culvert(service("goes", ports[0], leaf))
    peer = open_tls(ports[0], trust)
    echo(peer)
    reload(daemon, service("stays", ports[1], leaf))
    assert not answers(ports[0])
    echo(peer)
    finish(peer)


def test_a_changed_target_is_for_new_connections(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    leaf, trust = certificates.server, certificates.ca.cert
    with EchoServer() as backend:
        daemon = culvert(service("moves", ports[0], leaf, f"connect = 127.0.0.1:{backend.port}"))
        peer = open_tls(ports[0], trust)
        echo(peer)
        reload(daemon, service("moves", ports[0], leaf, "exec = /bin/echo\nexecArgs = echo the other one"))
        moved = open_tls(ports[0], trust)
        assert moved.recv() == b"the other one\n"
        finish(moved)
        echo(peer)
        finish(peer)


def test_a_changed_certificate_is_for_new_connections(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    first, second = certificates.server, certificates.ca.leaf("renewed", hosts=("localhost",))
    daemon = culvert(service("echo", ports[0], first), workers=2)
    old = open_tls(ports[0], certificates.ca.cert)
    assert certificate_of(old) == first.certificate
    reload(daemon, service("echo", ports[0], second))
    for _ in range(4):
        new = open_tls(ports[0], certificates.ca.cert)
        assert certificate_of(new) == second.certificate
        echo(new)
        finish(new)
    echo(old)
    finish(old)


def test_what_is_announced_is_in_force(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    leaves = [certificates.server, certificates.ca.leaf("renewed", hosts=("localhost",))]
    daemon = culvert(service("echo", ports[0], leaves[0]), workers=2)
    for number in range(1, 21):
        leaf = leaves[number % 2]
        reload(daemon, service("echo", ports[0], leaf))
        peer = open_tls(ports[0], certificates.ca.cert)
        seen = certificate_of(peer)
        peer.close()
        assert seen == leaf.certificate, f"reload {number} was announced before it was in force"


def test_a_certificate_renewed_in_its_place_is_read_anew(
    culvert: Start, certificates: Certificates, ports: list[int], tmp_path: Path
) -> None:
    cert, key = tmp_path / "live.crt", tmp_path / "live.key"

    def install(leaf: Leaf) -> None:
        cert.write_bytes(leaf.cert.read_bytes())
        key.touch(mode=0o600)
        key.write_bytes(leaf.key.read_bytes())

    install(certificates.server)
    services = f"[echo]\naccept = 127.0.0.1:{ports[0]}\nexec = /bin/cat\ncert = {cert}\nkey = {key}\n"
    daemon = culvert(services)
    renewed = certificates.ca.leaf("renewed", hosts=("localhost",))
    install(renewed)
    reload(daemon)
    peer = open_tls(ports[0], certificates.ca.cert)
    assert certificate_of(peer) == renewed.certificate
    finish(peer)


def test_the_number_of_workers_follows(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    services = service("echo", ports[0], certificates.server)
    daemon = culvert("workers = 1\n" + services, workers=None)
    (first,) = children(daemon.pid)
    reload(daemon, "workers = 3\n" + services)
    eventually(
        lambda: len(children(daemon.pid)) == 3 and first not in children(daemon.pid), "three new workers"
    )
    reload(daemon, "workers = 1\n" + services)
    await_workers(daemon, 1)
    say_tls(ports[0], certificates.ca.cert)


def test_old_workers_stay_as_long_as_their_connections(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    daemon = culvert(service("echo", ports[0], certificates.server))
    peers = []
    for _ in range(3):
        peers.append(open_tls(ports[0], certificates.ca.cert))
        echo(peers[-1])
        reload(daemon)
    await_workers(daemon, 4)
    for left, peer in enumerate(reversed(peers)):
        echo(peer)
        finish(peer)
        await_workers(daemon, 3 - left)


def test_nothing_is_left_behind_by_many(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    daemon = culvert(service("echo", ports[0], certificates.server), workers=2)
    reload(daemon)
    say_tls(ports[0], certificates.ca.cert)
    await_workers(daemon, 2)
    before = daemon.descriptors()
    for _ in range(8):
        reload(daemon)
    await_workers(daemon, 2)
    daemon.await_descriptors(before)


def test_a_storm_of_signals_ends_with_one_generation(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    daemon = culvert(service("echo", ports[0], certificates.server), workers=2)
    for _ in range(30):
        daemon.send_signal(signal.SIGHUP)
    say_tls(ports[0], certificates.ca.cert)
    reload(daemon)
    await_workers(daemon, 2)
    say_tls(ports[0], certificates.ca.cert)


def test_the_end_reaches_old_workers_too(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    daemon = culvert(service("echo", ports[0], certificates.server))
    peer = open_tls(ports[0], certificates.ca.cert)
    echo(peer)
    reload(daemon)
    daemon.stop()
    peer.close()


def test_the_log_may_move(
    culvert: Start, certificates: Certificates, ports: list[int], tmp_path: Path
) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    services = service("echo", ports[0], certificates.server)
    daemon = culvert(f"output = {first}\n{services}")
    reload(daemon, f"output = {second}\n{services}")
    say_tls(ports[0], certificates.ca.cert)
    eventually(lambda: second.exists() and "Connection closed" in second.read_text(), "the moved log")
    held = {str(entry.readlink()) for pid in daemon.tree() for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(first) not in held


def test_a_service_may_be_renamed(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    daemon = culvert(service("before", ports[0], certificates.server))
    mark = reload(daemon, service("after", ports[0], certificates.server))
    say_tls(ports[0], certificates.ca.cert)
    daemon.await_log(r"Service \[after\] accepted connection from ", since=mark)


def test_an_address_may_grow_and_shrink(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    narrow = service("echo", ports[0], certificates.server)
    wide = narrow.replace(f"127.0.0.1:{ports[0]}", str(ports[0]))
    daemon = culvert(narrow)
    for services in (wide, narrow):
        mark = daemon.reload(services)
        daemon.await_log("Accepting new connections|Configuration failed", since=mark)
        assert not daemon.log.find("Configuration failed", since=mark)
        say_tls(ports[0], certificates.ca.cert)


def test_a_unix_socket_is_kept_until_its_service_goes(
    culvert: Start, certificates: Certificates, ports: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "echo.socket"
    stays = service("stays", ports[0], certificates.server)
    services = stays + service("unix", 0, certificates.server).replace("127.0.0.1:0", str(path))
    daemon = culvert(services)
    inode = path.stat().st_ino
    reload(daemon)
    assert path.stat().st_ino == inode
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        peer = TlsPeer(sock, trusting(certificates.ca.cert), server=False)
        peer.handshake()
        echo(peer)
        finish(peer)
    reload(daemon, stays)
    eventually(lambda: not path.exists(), "the socket's end")


def test_a_worker_that_hangs_does_not_hold_it_up(
    culvert: Start, certificates: Certificates, ports: list[int]
) -> None:
    daemon = culvert(service("echo", ports[0], certificates.server), workers=2)
    hanging = children(daemon.pid)[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        reload(daemon)
        say_tls(ports[0], certificates.ca.cert)
    finally:
        os.kill(hanging, signal.SIGCONT)
    await_workers(daemon, 2)
    assert hanging not in children(daemon.pid)
