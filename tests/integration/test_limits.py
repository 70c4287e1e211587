"""Limits on connections, held over all processes of a daemon: who is refused, how, and who gets the place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import children, needs_root
from .echo import EchoServer, echo, echo_service, finish, open_tls, say_tls, trusting
from .harness import PATIENCE, Culvert, eventually
from .peers import Peers, TlsPeer, TruncatedError, dial

Start = Callable[..., Culvert]

REJECTED = r"LOG4\[\w+\]: Connection rejected: "


@pytest.fixture(scope="module")
def backend() -> Iterator[EchoServer]:
    """What the tunnels lead to."""
    with EchoServer() as server:
        yield server


@pytest.fixture(params=[0, 1, 2])
def workers(request: pytest.FixtureRequest) -> int:
    """How many workers the daemon has."""
    return int(request.param)


class Door:
    """A daemon with limits, and its clients."""

    def __init__(self, culvert: Start, certificates: Certificates, backend: EchoServer) -> None:
        self._culvert = culvert
        self._certificates = certificates
        self._backend = backend
        self._open: list[TlsPeer] = []

    def service(self, limits: str, name: str = "echo") -> str:
        """The section of a service that leads to the backend."""
        sink = f"connect = 127.0.0.1:{self._backend.port}"
        return echo_service(self._certificates, more=limits, name=name, sink=sink)

    def start(self, services: str, workers: int = 1, options: str = "") -> Door:
        self.daemon = self._culvert(services, workers=workers, options=options)
        return self

    def enter(self, name: str = "echo", source: str = "") -> TlsPeer:
        """A client that is served, and stays."""
        sock = self._dial_from(source or "127.0.0.1", name)
        peer = TlsPeer(sock, trusting(self._certificates.ca.cert), server=False)
        self._open.append(peer)
        peer.handshake()
        echo(peer)
        return peer

    def await_place(self, name: str = "echo", source: str = "") -> None:
        """A client that tries again until it is served: a place is free a moment after the log says so."""

        def served() -> bool:
            with contextlib.suppress(ConnectionError):
                self.enter(name, source)
                return True
            return False

        eventually(served, "a place", 5)

    def refuse(self, reason: str, name: str = "echo", source: str = "") -> None:
        """A client that is sent away at once, by an RST and with a line in the log (once a second)."""
        mark = self.daemon.log.mark()
        started = time.monotonic()
        with pytest.raises(ConnectionError), self._dial_from(source or "127.0.0.1", name) as sock:
            assert sock.recv(100) != b"", "a FIN came"
        assert time.monotonic() - started < 2
        assert not self.daemon.log.find("accepted connection", since=mark)
        eventually(lambda: self.daemon.log.find(REJECTED + reason), reason)

    def _dial_from(self, source: str, name: str) -> socket.socket:
        sock = socket.socket()
        try:
            sock.settimeout(PATIENCE)
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", self.daemon.port(name)))
        except BaseException:
            sock.close()
            raise
        return sock

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Clients come to this worker alone: the others are held."""
        others = [pid for pid in children(self.daemon.pid) if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        for peer in self._open:
            peer.close()


@pytest.fixture
def door(culvert: Start, certificates: Certificates, backend: EchoServer) -> Iterator[Door]:
    door = Door(culvert, certificates, backend)
    yield door
    door.close()


def test_one_too_many_is_refused_and_the_place_is_free_again(door: Door, workers: int) -> None:
    door.start(door.service("maxConnections = 2"), workers)
    first = door.enter()
    door.enter()
    door.refuse(r"too many clients \(>=2\)$")
    finish(first)
    door.await_place()


def three_by_two_workers(door: Door, option: str, reason: str) -> tuple[int, TlsPeer]:
    """Three come in, the last by another worker, which refuses a fourth for the sake of all; the first
    worker, and the last who came in.
    """
    door.start(door.service(option), 2)
    one, other = children(door.daemon.pid)
    with door.only(one):
        door.enter()
        door.enter()
    with door.only(other):
        last = door.enter()
        door.refuse(reason)
    return one, last


def test_the_total_is_of_all_workers(door: Door) -> None:
    one, last = three_by_two_workers(door, "maxConnections = 3", r"too many clients \(>=3\)")
    with door.only(one):
        door.refuse(r"too many clients \(>=3\)")
    finish(last)
    door.await_place()


def test_the_daemons_total_is_of_all_services(door: Door, workers: int) -> None:
    services = door.service("maxConnections = 2", "a") + door.service("", "b")
    door.start(services, workers, "maxConnections = 3\n")
    first = door.enter("a")
    door.enter("a")
    door.refuse(r"too many clients \(>=2\)", "a")
    door.enter("b")
    door.refuse(r"too many clients \(>=3\)", "b")
    finish(first)
    door.await_place("b")
    door.refuse(r"too many clients \(>=3\)", "a")


def test_an_address_has_so_many_over_all_workers(door: Door) -> None:
    door.start(door.service("maxConnectionsPerIP = 2"), 2)
    one, other = children(door.daemon.pid)
    with door.only(one):
        first = door.enter(source="127.0.0.2")
    with door.only(other):
        door.enter(source="127.0.0.2")
        door.refuse(r"too many clients from 127\.0\.0\.2 \(>=2\)", source="127.0.0.2")
        door.enter(source="127.0.0.3")
    finish(first)
    with door.only(one):
        door.await_place(source="127.0.0.2")


def test_an_address_has_so_many_in_one_process(door: Door) -> None:
    door.start(door.service("maxConnectionsPerIP = 1"), 0)
    first = door.enter()
    door.refuse(r"too many clients from 127\.0\.0\.1 \(>=1\)")
    door.enter(source="127.0.0.3")
    finish(first)
    door.await_place()


def test_new_ones_have_a_rate_over_all_workers(door: Door) -> None:
    three_by_two_workers(door, "acceptRate = 1:3", r"more than 1 new client\(s\) a second")
    door.await_place()


def test_silent_clients_below_their_budget_keep_nobody_out(door: Door, peers: Peers, workers: int) -> None:
    door.start(door.service("maxHandshakes = 5\nmaxConnections = 50"), workers)
    for _ in range(4):
        peers.dial(door.daemon.port("echo"))
    for _ in range(8):
        door.enter()


def test_silent_clients_keep_others_out_until_their_time_is_over(
    door: Door, peers: Peers, workers: int
) -> None:
    door.start(door.service("maxHandshakes = 4\nTIMEOUTbusy = 3"), workers)
    served = door.enter()
    silent = [peers.dial(door.daemon.port("echo")) for _ in range(4)]
    eventually(lambda: len(door.daemon.log.find("accepted connection")) == 5, "all of them inside")
    door.refuse(r"too many handshakes \(>=4\)$")
    echo(served)
    for sock in silent:
        with contextlib.suppress(ConnectionError):
            assert sock.recv(100) == b""
    mark = door.daemon.log.mark()
    door.await_place()
    door.daemon.send_signal(signal.SIGUSR2)
    door.daemon.await_log(r"refused: [1-9]\d* maxHandshakes", since=mark)


def test_handshakes_in_work_are_of_all_workers(door: Door, peers: Peers) -> None:
    door.start(door.service("maxHandshakes = 2"), 2)
    for worker in children(door.daemon.pid):
        with door.only(worker):
            mark = door.daemon.log.mark()
            peers.dial(door.daemon.port("echo"))
            door.daemon.await_log("accepted connection", since=mark)
    for worker in children(door.daemon.pid):
        with door.only(worker):
            door.refuse(r"too many handshakes \(>=2\)")


def test_a_reload_forgets_nobody(door: Door, workers: int) -> None:
    services = door.service("maxConnections = 2")
    door.start(services, workers)
    first, second = door.enter(), door.enter()
    for changed in ("; one\n", "; two\n"):
        mark = door.daemon.reload(services + changed)
        door.daemon.await_log("Accepting new connections", since=mark)
        door.refuse(r"too many clients \(>=2\)")
    echo(first)
    finish(second)
    door.await_place()
    door.refuse(r"too many clients \(>=2\)")


def test_a_reload_brings_another_limit(door: Door, workers: int) -> None:
    door.start(door.service("maxConnections = 1"), workers)
    door.await_place()
    door.refuse(r"too many clients \(>=1\)")
    mark = door.daemon.reload(door.service("maxConnections = 2"))
    door.daemon.await_log("Accepting new connections", since=mark)
    door.enter()
    door.refuse(r"too many clients \(>=2\)")
    mark = door.daemon.reload(door.service(""))
    door.daemon.await_log("Accepting new connections", since=mark)
    for _ in range(3):
        door.enter()


def test_a_killed_worker_gives_back_its_share(door: Door) -> None:
    door.start(door.service("maxConnections = 3\nmaxConnectionsPerIP = 2"), 2)
    one, other = children(door.daemon.pid)
    with door.only(one):
        door.enter()
        door.enter()
    with door.only(other):
        door.refuse("too many clients from")
    mark = door.daemon.log.mark()
    os.kill(one, signal.SIGKILL)
    door.daemon.await_log("is replaced in", since=mark)
    with door.only(other):
        door.enter()
        door.enter()
        door.refuse("too many clients from")


def test_who_comes_by_a_server_name_counts_for_both_services(
    door: Door, certificates: Certificates, backend: EchoServer
) -> None:
    leaf = certificates.server
    other = (
        f"[other]\nsni = echo:other.example\ncert = {leaf.cert}\nkey = {leaf.key}\n"
        f"connect = 127.0.0.1:{backend.port}\nmaxConnections = 1\n"
    )
    daemon = door.start(door.service("maxConnections = 3") + other).daemon

    def enter(name: str) -> TlsPeer:
        peer = TlsPeer(dial(daemon.port("echo")), trusting(certificates.ca.cert), server=False, name=name)
        try:
            peer.handshake()
            echo(peer)
        except BaseException:
            peer.close()
            raise
        return peer

    first = enter("other.example")
    with pytest.raises((ConnectionError, TruncatedError)):
        enter("other.example")
    daemon.await_log(REJECTED + r"too many clients \(>=1\)")
    held = [enter(""), enter("")]
    with pytest.raises(ConnectionError):
        enter("")
    daemon.await_log(REJECTED + r"too many clients \(>=3\)")
    finish(first)

    def again() -> bool:
        with contextlib.suppress(ConnectionError, TruncatedError):
            held.append(enter("other.example"))
            return True
        return False

    eventually(again, "a place", 5)
    for peer in held:
        peer.close()


def test_a_flood_of_refused_ones_does_not_flood_the_log(door: Door) -> None:
    door.start(door.service("maxConnections = 1"))
    door.await_place()
    started = time.monotonic()
    for _ in range(200):
        with contextlib.suppress(ConnectionError), dial(door.daemon.port("echo")) as sock:
            sock.recv(1)
    took = time.monotonic() - started
    assert 1 <= len(door.daemon.log.find(REJECTED)) <= took + 1
    door.daemon.send_signal(signal.SIGUSR2)
    door.daemon.await_log("1 accepted, .*refused: 200 maxConnections")


def test_clients_of_a_unix_socket_are_counted(
    culvert: Start, tmp_path: Path, backend: EchoServer, certificates: Certificates
) -> None:
    path = tmp_path / "door"
    leaf = certificates.server
    daemon = culvert(
        f"maxConnectionsPerIP = 1\n[s]\naccept = {path}\nconnect = 127.0.0.1:{backend.port}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\nmaxConnections = 2\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(path))
            daemon.await_log("accepted connection from unix socket")
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
        daemon.await_log(REJECTED + r"too many clients \(>=2\)")


@needs_root
def test_in_a_jail_as_somebody_else_they_hold_as_well(door: Door, tmp_path: Path, workers: int) -> None:
    jail = tmp_path / "jail"
    jail.mkdir()
    options = f"chroot = {jail}\nsetuid = nobody\n"
    limits = "maxConnections = 2\nmaxConnectionsPerIP = 1\nmaxHandshakes = 1\nacceptRate = 100"
    door.start(door.service(limits), workers, options)
    first = door.enter()
    door.refuse("too many clients from")
    finish(first)
    door.await_place()


def test_without_limits_nothing_is_refused(door: Door, certificates: Certificates) -> None:
    door.start(door.service(""))
    for _ in range(20):
        door.enter()
    say_tls(door.daemon.port("echo"), certificates.ca.cert)
    open_tls(door.daemon.port("echo"), certificates.ca.cert).close()


def test_behind_a_proxy_the_clients_address_is_the_one_that_counts(
    door: Door, certificates: Certificates
) -> None:
    trusted = "acceptProxy = yes\ntrustProxy = 127.0.0.1\nmaxConnectionsPerIP = 1"
    daemon = door.start(door.service(trusted), 2).daemon

    def enter(client: str) -> TlsPeer:
        sock = dial(daemon.port("echo"))
        sock.sendall(f"PROXY TCP4 {client} 127.0.0.1 1000 443\r\n".encode())
        peer = TlsPeer(sock, trusting(certificates.ca.cert), server=False)
        try:
            peer.handshake()
            echo(peer)
        except BaseException:
            peer.close()
            raise
        return peer

    held = [enter("203.0.113.7"), enter("203.0.113.8")]
    for _ in range(4):
        with pytest.raises((ConnectionError, TruncatedError)):
            enter("203.0.113.7")
    daemon.await_log(REJECTED + r"too many clients from 203\.0\.113\.7 \(>=1\)")
    finish(held.pop())

    def again() -> bool:
        with contextlib.suppress(ConnectionError, TruncatedError):
            held.append(enter("203.0.113.8"))
            return True
        return False

    eventually(again, "a place", 5)
    for peer in held:
        peer.close()
