"""What a reload does to listening sockets: overlapping addresses, socket options, a Unix socket's owner."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import fixed_ports, needs_root
from .echo import echo_service, say_tls
from .harness import PATIENCE, Culvert, eventually
from .test_socket_options import sockets_of

Start = Callable[..., Culvert]

ACCEPTS = r"Accepting new connections"


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same."""
    with fixed_ports(1) as ports:
        yield ports[0]


def service(certificates: Certificates, accept: object, more: str = "") -> str:
    """A service that gives back what it gets, at this address."""
    leaf = certificates.server
    return f"[echo]\naccept = {accept}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n{more}"


class Caller(threading.Thread):
    """Connects to a port over and over, and counts how that ended."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.outcomes: Counter[int] = Counter()
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            with socket.socket() as sock:
                sock.settimeout(PATIENCE)
                self.outcomes[sock.connect_ex(("127.0.0.1", self.port))] += 1

    def __enter__(self) -> Caller:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_overlapping_address_is_taken_over_without_a_gap(
    culvert: Start, certificates: Certificates, port: int, workers: int
) -> None:
    every = service(certificates, f"0.0.0.0:{port}")
    one = service(certificates, f"127.0.0.1:{port}")
    daemon = culvert(one, workers=workers)
    with Caller(port) as caller:
        for text in (every, one, every):
            daemon.await_log(ACCEPTS, since=daemon.reload(text))
            say_tls(port, certificates.ca.cert)
    # One that waits to be accepted as its socket is closed is reset: that address was given up.
    assert caller.outcomes.keys() <= {0, errno.ECONNRESET}
    assert caller.outcomes[0] > caller.outcomes[errno.ECONNRESET]
    assert not daemon.log.find("Address already in use|Configuration failed")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.2", port))
        other.listen()


@pytest.mark.parametrize("workers", [0, 2])
def test_another_spelling_keeps_the_socket(
    culvert: Start, certificates: Certificates, port: int, workers: int
) -> None:
    daemon = culvert(service(certificates, f"127.0.0.1:{port}"), workers=workers)
    before = listening(daemon, port)
    daemon.await_log(ACCEPTS, since=daemon.reload(service(certificates, f"localhost:{port}")))
    assert listening(daemon, port) == before
    say_tls(port, certificates.ca.cert)


def listening(daemon: Culvert, port: int) -> int:
    """The inode of the socket that the daemon listens on."""
    sock = accept_socket(daemon, port)
    try:
        return os.fstat(sock.fileno()).st_ino
    finally:
        sock.close()


def accept_socket(daemon: Culvert, port: int) -> socket.socket:
    """A duplicate of the daemon's listening socket."""
    found = None
    for sock in eventually(lambda: opened(daemon), "a moment in which no descriptor of the daemon is closed"):
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        if found is None and listens and sock.getsockname()[1] == port:
            found = sock
        else:
            sock.close()
    assert found is not None
    return found


def opened(daemon: Culvert) -> list[socket.socket]:
    """Duplicates of the daemon's sockets; none where it closes one meanwhile."""
    try:
        return sockets_of([daemon.pid])
    except FileNotFoundError:
        return []


class TestOptions:
    """The socket options of a listener that is kept."""

    CHANGED = "socket = a:IP_TTL=7\nsocket = a:SO_KEEPALIVE=yes\n"

    @staticmethod
    def state(daemon: Culvert, port: int) -> tuple[int, int]:
        with accept_socket(daemon, port) as sock:
            return (
                sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            )

    @pytest.mark.parametrize("workers", [0, 1])
    def test_they_come_and_go_with_the_configuration(
        self, culvert: Start, certificates: Certificates, port: int, workers: int
    ) -> None:
        daemon = culvert(echo_service(certificates, port), workers=workers)
        before = self.state(daemon, port)
        daemon.await_log(ACCEPTS, since=daemon.reload(echo_service(certificates, port, self.CHANGED)))
        assert self.state(daemon, port) == (7, 1)
        daemon.await_log(ACCEPTS, since=daemon.reload(echo_service(certificates, port)))
        assert self.state(daemon, port) == before

    def test_a_failed_reload_changes_none(
        self, culvert: Start, certificates: Certificates, port: int
    ) -> None:
        daemon = culvert(echo_service(certificates, port))
        before = self.state(daemon, port)
        with socket.create_server(("127.0.0.1", 0)) as busy:
            wanted = echo_service(certificates, port, self.CHANGED)
            mark = daemon.reload(wanted + echo_service(certificates, busy.getsockname()[1], name="busy"))
            daemon.await_log("Configuration failed", since=mark)
        assert self.state(daemon, port) == before


@needs_root
def test_the_owner_of_a_unix_socket_follows(
    culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    path = tmp_path / "accept"
    daemon = culvert(service(certificates, path, "setuid = 65534\nsetgid = 65534\n"))
    inode = path.stat().st_ino
    for more, ids in (("setuid = 12345\n", (12345, 0)), ("", (0, 0)), ("setgid = 65534\n", (0, 65534))):
        daemon.await_log(ACCEPTS, since=daemon.reload(service(certificates, path, more)))
        found = path.stat()
        assert (found.st_uid, found.st_gid) == ids
        assert found.st_ino == inode
    daemon.send_signal(signal.SIGTERM)
    daemon.process.wait(20)
    assert not path.exists()
