"""The worst moments: a worker is killed with a queue, while it drains or starts; reloads come at once."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .admin_client import Admin
from .certificates import Certificates
from .daemon import answers, children, fixed_ports
from .echo import EchoServer, echo, echo_service, finish, open_tls, say_tls, trusting
from .harness import HEADER, PATIENCE, Culvert, eventually, open_descriptors
from .loading import listens, stopped
from .peers import TlsPeer, background, client_context, dial
from .service_manager import handing

Start = Callable[..., Culvert]

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""Of asm-generic/socket.h."""

LONG = HEADER + "drainTimeout = 60\n"
CUT_SHORT = 4

processes = pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same over reloads."""
    with fixed_ports(1) as ports:
        yield ports[0]


@pytest.fixture
def target() -> Iterator[str]:
    """Where a service gets back what it sends."""
    with EchoServer() as server:
        yield f"connect = 127.0.0.1:{server.port}"


def serving(daemon: Culvert, port: int) -> list[int]:
    """The workers that accept."""
    return [pid for pid in children(daemon.pid) if listens(pid, port)]


def others(daemon: Culvert, known: set[int]) -> set[int]:
    """The workers that are not known yet."""
    return set(children(daemon.pid)) - known


def stop(pid: int) -> None:
    """Have a process do nothing any more."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: stopped(pid), "the end of its work")


def serve_late(sock: socket.socket, certificates: Certificates) -> None:
    """Does what a client does that has waited in a queue."""
    peer = TlsPeer(sock, trusting(certificates.ca.cert), server=False)
    peer.handshake()
    echo(peer)
    finish(peer)


@contextlib.contextmanager
def half_connected(port: int) -> Iterator[socket.socket]:
    """A client who has asked for a connection, and hears no answer until it is `let_through`."""
    drop_all = ctypes.create_string_buffer(struct.pack("@HBBI", 0x06, 0, 0, 0))
    with socket.socket() as sock:
        program = struct.pack("@HP", 1, ctypes.addressof(drop_all))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        sock.setblocking(False)
        assert sock.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        yield sock


def let_through(sock: socket.socket) -> None:
    """Have a client hear what is sent to it."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def refused(port: int) -> bool:
    """Whether nobody listens."""
    return not answers(port)


class TestKilled:
    def test_what_waits_in_the_queue_is_served_by_the_next_one(
        self, culvert: Start, certificates: Certificates, port: int
    ) -> None:
        daemon = culvert(echo_service(certificates, port), workers=1)
        (worker,) = children(daemon.pid)
        stop(worker)
        waiting = [dial(port) for _ in range(5)]
        os.kill(worker, signal.SIGKILL)
        waiting += [dial(port) for _ in range(5)]
        for sock in waiting:
            serve_late(sock, certificates)

    def test_what_the_dead_held_is_free_again(
        self, culvert: Start, certificates: Certificates, port: int, target: str, tmp_path: Path
    ) -> None:
        admin = Admin(tmp_path / "admin")
        options = f"admin = {admin.at}\nmaxConnections = 3\nmaxConnectionsPerIP = 3\nmaxHandshakes = 3\n"
        daemon = culvert(echo_service(certificates, port, sink=target), options=options, workers=2)
        for _ in range(3):
            peers = [open_tls(port, certificates.ca.cert) for _ in range(2)]
            half = dial(port)  # in its handshake
            eventually(lambda: admin.metric("culvert_connections_open", service="echo") == 3, "all")
            for pid in serving(daemon, port):
                mark = daemon.log.mark()
                os.kill(pid, signal.SIGKILL)
                daemon.await_log(rf"\(pid {pid}\) was killed", since=mark)
            assert admin.metric("culvert_connections_open", service="echo") == 0
            for peer in peers:
                peer.close()
            half.close()
            mark = daemon.log.mark()
            daemon.send_signal(signal.SIGHUP)  # so that the next ones are not replaced more slowly
            daemon.await_log("Accepting new connections", since=mark)
        full = [open_tls(port, certificates.ca.cert) for _ in range(3)]
        for peer in full:
            echo(peer)
        with pytest.raises((ConnectionError, AssertionError)), dial(port) as one:
            assert one.recv(1)
        for peer in full:
            finish(peer)

    def test_while_the_daemon_drains(
        self, culvert: Start, certificates: Certificates, port: int, target: str, tmp_path: Path
    ) -> None:
        admin = Admin(tmp_path / "admin")
        daemon = culvert(
            echo_service(certificates, port, sink=target),
            header=LONG,
            options=f"admin = {admin.at}\n",
            workers=2,
        )
        by_worker: dict[int, TlsPeer] = {}
        while len(by_worker) < 2:
            peer = open_tls(port, certificates.ca.cert)
            echo(peer)
            client = str(peer.sock.getsockname()[1])
            listed = admin.ask("/connections").document["connections"]
            (worker,) = [one["worker"] for one in listed if one["peer"].endswith(f":{client}")]
            if worker in by_worker:
                finish(peer)
            else:
                by_worker[worker] = peer
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(r"Stopping: waiting for 2 connection\(s\)")
        (first, lost), (_, other) = by_worker.items()
        os.kill(first, signal.SIGKILL)
        daemon.await_log(rf"\(pid {first}\) was killed by SIGKILL")
        lost.close()
        echo(other)
        finish(other)
        assert daemon.wait() == CUT_SHORT
        assert daemon.log.find(r"1 connection\(s\) were ended before they had finished")
        daemon.stop(status=CUT_SHORT)

    def test_between_its_fork_and_its_ready(
        self, culvert: Start, certificates: Certificates, port: int
    ) -> None:
        services = echo_service(certificates, port)
        daemon = culvert(services, workers=2)
        old = open_tls(port, certificates.ca.cert)
        echo(old)
        before = set(children(daemon.pid))
        for _ in range(20):
            mark = daemon.log.mark()
            daemon.send_signal(signal.SIGHUP)
            fresh = eventually(functools.partial(others, daemon, before), "a new worker")
            with contextlib.suppress(ProcessLookupError):
                os.kill(max(fresh), signal.SIGKILL)
            daemon.await_log("Configuration failed|Accepting new connections", since=mark)
            say_tls(port, certificates.ca.cert)
            if daemon.log.find("before all workers were ready", since=mark):
                break
            eventually(lambda: len(serving(daemon, port)) == 2, "all workers")
            before = set(children(daemon.pid))
        else:
            raise AssertionError("it was always too late")
        mark = daemon.log.mark()
        daemon.send_signal(signal.SIGHUP)
        daemon.await_log("Accepting new connections", since=mark)
        say_tls(port, certificates.ca.cert)
        echo(old)
        finish(old)


class TestReload:
    @processes
    def test_one_during_the_end_is_refused(
        self, culvert: Start, certificates: Certificates, port: int, tmp_path: Path, workers: int
    ) -> None:
        admin = Admin(tmp_path / "admin")
        options = f"admin = {admin.at}\n"
        daemon = culvert(echo_service(certificates, port), header=LONG, options=options, workers=workers)
        peer = open_tls(port, certificates.ca.cert)
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log("Stopping: waiting for 1")
        assert admin.post("/reload").status == 503
        daemon.send_signal(signal.SIGHUP)
        echo(peer)
        finish(peer)
        assert daemon.wait() == 0
        daemon.stop()

    @processes
    def test_many_leave_nothing_behind(
        self, culvert: Start, certificates: Certificates, port: int, tmp_path: Path, workers: int
    ) -> None:
        admin = Admin(tmp_path / "admin")
        options = f"admin = {admin.at}\noutput = {tmp_path / 'log'}\nmaxConnections = 100\n"
        daemon = culvert(echo_service(certificates, port), options=options, workers=workers)

        def held() -> list[int]:
            """Descriptors: of the first process, and of each other one."""
            eventually(
                lambda: len(children(daemon.pid)) == (workers + 1 if workers else 0), "the old ones' end"
            )
            return sorted(open_descriptors([pid]) for pid in [daemon.pid, *children(daemon.pid)])

        for _ in range(2):
            assert admin.post("/reload").status == 200
        say_tls(port, certificates.ca.cert)
        before, memory = held(), daemon.memory()
        for number in range(15):
            if number % 5 == 0:
                daemon.send_signal(signal.SIGUSR1)
            assert admin.post("/reload").status == 200
        say_tls(port, certificates.ca.cert)
        # One that a reload loses would be there fifteen times; a few come and go.
        eventually(lambda: sum(held()) < sum(before) + 5, "no more descriptors than before")
        assert daemon.memory() < memory + (6 << 20)

    @processes
    def test_one_over_the_endpoint_is_over_when_it_is_done(
        self, culvert: Start, certificates: Certificates, port: int, tmp_path: Path, workers: int
    ) -> None:
        admin = Admin(tmp_path / "admin")
        daemon = culvert(echo_service(certificates, port), options=f"admin = {admin.at}\n", workers=workers)
        mark = daemon.log.mark()
        started = time.monotonic()
        for _ in range(4):
            assert admin.post("/reload").status == 200
        assert time.monotonic() - started < 10  # and not three seconds each
        assert len(daemon.log.find("Accepting new connections", since=mark)) == 4

    def test_one_that_has_to_wait_is_told_of_its_own_outcome(
        self, culvert: Start, certificates: Certificates, port: int, tmp_path: Path
    ) -> None:
        admin = Admin(tmp_path / "admin")
        daemon = culvert(echo_service(certificates, port), options=f"admin = {admin.at}\n", workers=1)
        (worker,) = serving(daemon, port)
        stop(worker)  # so that the first reload is not over before the second one is asked for
        try:
            mark = daemon.log.mark()
            daemon.send_signal(signal.SIGHUP)
            eventually(lambda: len(serving(daemon, port)) == 2, "the new worker")
            daemon.configure("[echo]\nnonsense = 1\n")
            second = background(admin.post, "/reload")
            daemon.await_log("asked for over the admin endpoint", since=mark)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert second.result(30).status == 409
        assert daemon.log.find("Accepting new connections", since=mark)


class TestEnd:
    @processes
    def test_in_the_middle_of_a_reload(
        self, culvert: Start, certificates: Certificates, port: int, target: str, workers: int
    ) -> None:
        services = echo_service(certificates, port, sink=target)
        for pause in (0.0, 0.03, 0.1):
            daemon = culvert(services, header=LONG, workers=workers)
            peer = open_tls(port, certificates.ca.cert)
            echo(peer)
            daemon.send_signal(signal.SIGHUP)
            time.sleep(pause)
            daemon.send_signal(signal.SIGTERM)
            daemon.await_log("Stopping: waiting for")
            echo(peer)
            finish(peer)
            assert daemon.wait() == 0
            daemon.stop()

    def test_who_has_connected_is_served_and_nobody_connects_later(
        self, culvert: Start, certificates: Certificates, port: int, target: str
    ) -> None:
        """Also while the workers have not closed the socket yet."""
        daemon = culvert(echo_service(certificates, port, sink=target), header=LONG, workers=2)
        workers = children(daemon.pid)
        for pid in workers:
            stop(pid)
        waiting = [dial(port) for _ in range(4)]
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log("Received SIGTERM")
        eventually(lambda: not listens(daemon.pid, port), "the supervisor's end of the socket")
        with socket.socket() as late:
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.connect(("127.0.0.1", port))
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            for sock in waiting:
                serve_late(sock, certificates)
        assert refused(port)
        assert daemon.wait() == 0
        daemon.stop()

    @processes
    def test_who_was_connecting_is_served(
        self, culvert: Start, certificates: Certificates, port: int, target: str, workers: int
    ) -> None:
        daemon = culvert(echo_service(certificates, port, sink=target), header=LONG, workers=workers)
        with half_connected(port) as client:
            daemon.send_signal(signal.SIGTERM)
            let_through(client)  # the answer comes again within a second of the first one
            assert select.select([], [client], [], PATIENCE)[1]
            client.settimeout(PATIENCE)
            serve_late(client, certificates)
        assert daemon.wait() == 0
        daemon.stop()

    @processes
    def test_sockets_of_the_service_manager_keep_clients_for_the_next_daemon(
        self, tmp_path: Path, certificates: Certificates, port: int, target: str, workers: int
    ) -> None:
        services = echo_service(certificates, port, sink=target)
        with socket.create_server(("127.0.0.1", port)) as listening:
            daemons = []
            for name in ("first", "second"):
                (tmp_path / name).mkdir()
                fd = listening.fileno()
                daemons.append(
                    Culvert(
                        tmp_path / name,
                        services,
                        header=LONG,
                        workers=workers,
                        prefix=handing(fd),
                        descriptors=[fd],
                    )
                )
            first, second = daemons
            first.start()
            old = open_tls(port, certificates.ca.cert)
            echo(old)
            first.send_signal(signal.SIGTERM)
            first.await_log("Stopping: waiting for 1")
            waiting = [dial(port) for _ in range(5)]  # nobody serves now, and nobody is refused
            finish(old)
            assert first.wait() == 0
            first.stop()
            waiting += [dial(port) for _ in range(5)]
            with second:
                for sock in waiting:
                    serve_late(sock, certificates)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_session_of_an_earlier_generation_is_no_obstacle(
    culvert: Start, certificates: Certificates, port: int, version: str
) -> None:
    daemon = culvert(echo_service(certificates, port), workers=2)
    context = client_context(version, trust=certificates.ca.cert)
    peer = TlsPeer(dial(port), context, server=False)
    peer.handshake()
    echo(peer)
    session = peer.engine.get_session()
    assert session is not None
    finish(peer)
    mark = daemon.log.mark()
    daemon.send_signal(signal.SIGHUP)
    daemon.await_log("Accepting new connections", since=mark)
    peer = TlsPeer(dial(port), context, server=False)
    peer.engine.set_session(session)
    peer.handshake()
    echo(peer)
    finish(peer)
    daemon.await_log("new session negotiated", since=mark)


_DEAF = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_worker_whose_end_no_signal_told_is_replaced(
    culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), prefix=[sys.executable, "-c", _DEAF], workers=1)
    mark = daemon.log.mark()
    (worker,) = children(daemon.pid)
    os.kill(worker, signal.SIGKILL)
    daemon.await_log(rf"Worker 0 \(pid {worker}\) was killed by SIGKILL", since=mark)
    say_tls(daemon.port("echo"), certificates.ca.cert)
