"""A service that runs its program by itself, over reloads: one copy at a time, and nobody left waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .daemon import children
from .echo import echo
from .harness import Culvert, eventually
from .peers import Listener, Peers, TlsPeer, server_context

Start = Callable[..., Culvert]


def running(pids: list[int], word: str) -> int:
    """How many of these processes have `word` in their command line."""
    count = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            count += word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return count


def copies(daemon: Culvert) -> int:
    """How many copies of the program run."""
    return running(daemon.tree(), "/bin/cat")


class Repeated:
    """A client service without accept: its program `cat` talks to a TLS server that the test plays."""

    def __init__(self, culvert: Start, peers: Peers, certificates: Certificates, workers: int) -> None:
        self._listener: Listener = peers.listen()
        self._context: SSL.Context = server_context(certificates.server)
        self._culvert = culvert
        self._workers = workers
        self._service = (
            f"[again]\nclient = yes\nexec = /bin/cat\nconnect = 127.0.0.1:{self._listener.port}\n"
            "TIMEOUTclose = 1\n"
        )

    def start(self, retry: int = 100) -> Culvert:
        """Starts the daemon with this many milliseconds between two runs."""
        self._service += f"retry = {retry}\n"
        self.daemon = self._culvert(self._service, workers=self._workers)
        return self.daemon

    def answer(self) -> TlsPeer:
        """The server's end of the program's next connection; it has proved that the program is there."""
        peer = TlsPeer(self._listener.accept(), self._context, server=True)
        peer.handshake()
        echo(peer)
        return peer

    def reload(self) -> None:
        """Loads the configuration anew."""
        mark = self.daemon.reload(self._service)
        self.daemon.await_log("Accepting new connections", since=mark)

    def workers(self) -> int:
        """How many workers there are, programs left out."""
        return running(children(self.daemon.pid), "culvert")

    def await_workers(self, count: int) -> None:
        """Waits until as many workers are left: those with a connection, and the current one."""
        expected = 0 if self._workers == 0 else count
        eventually(lambda: self.workers() == expected, f"{expected} worker(s)")


@pytest.fixture(params=[0, 1])
def repeated(
    request: pytest.FixtureRequest, culvert: Start, peers: Peers, certificates: Certificates
) -> Repeated:
    """A daemon with the service, in one process and with a worker."""
    return Repeated(culvert, peers, certificates, request.param)


def test_many_reloads_leave_one_copy_and_nobody_that_waits(repeated: Repeated) -> None:
    daemon = repeated.start()
    peer = repeated.answer()
    for _ in range(2):
        repeated.reload()
    repeated.await_workers(2)
    before = daemon.descriptors()
    for _ in range(6):
        repeated.reload()
        assert copies(daemon) == 1
    repeated.await_workers(2)
    daemon.await_descriptors(before)
    echo(peer)
    assert copies(daemon) == 1


def test_the_next_one_has_its_turn_once_the_last_copy_has_ended(repeated: Repeated) -> None:
    daemon = repeated.start()
    first = repeated.answer()
    repeated.reload()
    first.end()
    first.close()
    second = repeated.answer()
    repeated.await_workers(1)
    assert copies(daemon) == 1
    echo(second)


def test_a_pause_between_two_runs_holds_up_no_reload(repeated: Repeated) -> None:
    daemon = repeated.start(retry=3_600_000)
    first = repeated.answer()
    first.end()
    first.close()
    daemon.await_log("Connection closed")
    repeated.reload()
    repeated.await_workers(1)
    echo(repeated.answer())
    assert copies(daemon) == 1


def test_the_end_of_the_daemon_waits_for_no_turn(repeated: Repeated) -> None:
    daemon = repeated.start()
    repeated.answer()
    repeated.reload()
    daemon.stop()
