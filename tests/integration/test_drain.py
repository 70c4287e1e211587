"""The end of the daemon: connections finish within drainTimeout, or are ended in good order."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from .certificates import Certificates
from .daemon import answers, children, fixed_ports
from .echo import echo, echo_service, finish, open_tls
from .harness import Culvert, eventually
from .peers import (
    Peers,
    PlainPeer,
    TlsPeer,
    background,
    client_context,
    dial,
    digest,
    pattern,
    read_all,
    read_exactly,
    server_context,
)

Start = Callable[..., Culvert]

CUT_SHORT = 4
HEADER = "foreground = yes\nsyslog = no\npid =\ndebug = 7\n"
LONG = HEADER + "drainTimeout = 60\n"
SHORT = HEADER + "drainTimeout = 0.3\n"
WAITING = r"LOG5\[main\]: Stopping: waiting for (\d+) connection\(s\) to finish, at most (\S+) s, until \d\d:"

processes = pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same over reloads and is refused to clients once it is closed."""
    with fixed_ports(1) as ports:
        yield ports[0]


def relay_service(certificates: Certificates, port: int, target: int) -> str:
    """A server service in front of a target that the test plays."""
    return echo_service(certificates, port, sink=f"connect = 127.0.0.1:{target}")


def ended(daemon: Culvert, status: int = 0) -> None:
    """Waits for the end that a signal has begun, and sees that it was a good one."""
    assert daemon.wait() == status, "\n".join(daemon.log.lines[-40:])
    daemon.stop(status=status)


class TestFinish:
    """Connections that come to their own end in time."""

    @processes
    def test_a_connection_goes_on_and_no_new_one_is_accepted(
        self, culvert: Start, certificates: Certificates, port: int, workers: int
    ) -> None:
        daemon = culvert(echo_service(certificates, port), header=LONG, workers=workers)
        peer = open_tls(port, certificates.ca.cert)
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        told = daemon.await_log(WAITING)
        assert told.groups() == ("1", "60")
        eventually(lambda: not answers(port), "the closed port")
        echo(peer)
        finish(peer)
        ended(daemon)
        assert daemon.log.find(r"LOG5\[main\]: All connections have finished")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
    def test_other_signals_drain_as_well(
        self, culvert: Start, certificates: Certificates, number: signal.Signals
    ) -> None:
        daemon = culvert(echo_service(certificates), header=LONG)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        daemon.send_signal(number)
        daemon.await_log(WAITING)
        finish(peer)
        ended(daemon)

    @processes
    def test_nothing_open_is_no_wait(self, culvert: Start, certificates: Certificates, workers: int) -> None:
        daemon = culvert(echo_service(certificates), header=LONG, workers=workers)
        daemon.stop()
        assert daemon.log.find("Stopping: no connection is open")

    def test_what_waits_in_the_queue_is_served(self, culvert: Start, certificates: Certificates) -> None:
        daemon = culvert(echo_service(certificates), header=LONG)
        port = daemon.port("echo")
        (worker,) = children(daemon.pid)
        os.kill(worker, signal.SIGSTOP)
        waiting = [PlainPeer(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(5)]
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log("Received SIGTERM")
        os.kill(worker, signal.SIGCONT)
        assert daemon.await_log(WAITING)[1] == "5"
        for plain in waiting:
            peer = TlsPeer(plain.sock, client_context(trust=certificates.ca.cert), server=False)
            peer.handshake()
            echo(peer)
            finish(peer)
        ended(daemon)

    @processes
    def test_a_handshake_under_way_is_finished(
        self, culvert: Start, certificates: Certificates, peers: Peers, workers: int
    ) -> None:
        daemon = culvert(echo_service(certificates), header=LONG, workers=workers)
        sock = peers.dial(daemon.port("echo"))
        daemon.await_log("accepted connection")
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(WAITING)
        peer = TlsPeer(sock, client_context(trust=certificates.ca.cert), server=False)
        peer.handshake()
        echo(peer)
        finish(peer)
        ended(daemon)

    @processes
    def test_a_transfer_under_way_is_finished(
        self, culvert: Start, certificates: Certificates, peers: Peers, workers: int
    ) -> None:
        target = peers.listen()
        daemon = culvert(relay_service(certificates, 0, target.port), header=LONG, workers=workers)
        data = pattern(4_000_000)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        backend = PlainPeer(target.accept())
        backend.send(data[:1000])
        assert read_exactly(peer, 1000) == data[:1000]
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(WAITING)
        sent = background(backend.send, data[1000:])
        assert digest(read_exactly(peer, len(data) - 1000)) == digest(data[1000:])
        sent.result(20)
        backend.end()
        assert read_all(peer) == b""
        peer.end()
        peer.close()
        ended(daemon)

    def test_a_half_closed_connection_is_finished(
        self, culvert: Start, certificates: Certificates, peers: Peers
    ) -> None:
        target = peers.listen()
        daemon = culvert(relay_service(certificates, 0, target.port), header=LONG)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        backend = PlainPeer(target.accept())
        peer.send(b"question")
        peer.end()
        assert read_all(backend) == b"question"
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(WAITING)
        backend.send(b"answer")
        backend.end()
        assert read_all(peer) == b"answer"
        peer.close()
        ended(daemon)

    def test_a_program_finishes_what_it_says(self, culvert: Start, certificates: Certificates) -> None:
        program = "exec = /bin/sh\nexecArgs = sh -c read${IFS}line;echo${IFS}$line"
        daemon = culvert(echo_service(certificates, sink=program), header=LONG)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        daemon.await_log("Local mode child started")
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(WAITING)
        peer.send(b"the end\n")
        assert read_all(peer) == b"the end\n"
        peer.end()
        peer.close()
        ended(daemon)

    @processes
    def test_connections_from_before_a_reload_finish_too(
        self, culvert: Start, certificates: Certificates, port: int, workers: int
    ) -> None:
        services = echo_service(certificates, port)
        daemon = culvert(services, header=LONG, workers=workers)
        old = open_tls(port, certificates.ca.cert)
        echo(old)
        mark = daemon.reload(services)
        daemon.await_log("Accepting new connections", since=mark)
        new = open_tls(port, certificates.ca.cert)
        echo(new)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.await_log(WAITING)[1] == "2"
        for peer in (new, old):
            echo(peer)
            finish(peer)
        ended(daemon)


class TestDeadline:
    """Connections that do not come to their end in time."""

    @pytest.mark.parametrize("workers, loop", [(0, "uvloop"), (2, "asyncio"), (2, "uvloop")])
    def test_an_idle_one_is_ended_with_close_notify(
        self, culvert: Start, certificates: Certificates, version: str, workers: int, loop: str
    ) -> None:
        daemon = culvert(
            echo_service(certificates), header=SHORT, workers=workers, environment={"CULVERT_LOOP": loop}
        )
        peer = TlsPeer(
            dial(daemon.port("echo")), client_context(version, trust=certificates.ca.cert), server=False
        )
        peer.handshake()
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        assert peer.recv() == b""  # an end without close_notify would raise
        assert peer.sock.recv(1) == b""  # and an RST
        peer.close()
        daemon.await_log("drainTimeout exceeded: ending the connections that are left")
        ended(daemon, CUT_SHORT)
        assert daemon.log.find(r"1 connection\(s\) were ended before they had finished")
        assert daemon.log.find("Connection ended with its worker")

    @processes
    def test_one_that_sends_without_end_reads_close_notify_before_anything_else(
        self, culvert: Start, certificates: Certificates, peers: Peers, workers: int
    ) -> None:
        target = peers.listen()
        daemon = culvert(relay_service(certificates, 0, target.port), header=SHORT, workers=workers)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        backend = target.accept()
        peer.sock.settimeout(0.05)
        block = pattern(65536)
        daemon.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            backend.recv(65536)
            try:
                peer.send(block)
            except OSError:
                break
            try:
                assert peer.recv() == b""
                break
            except TimeoutError:
                continue
        else:
            raise AssertionError("the connection was not ended")
        peer.close()
        ended(daemon, CUT_SHORT)

    @processes
    def test_one_that_is_sent_to_gets_whole_records_up_to_close_notify(
        self, culvert: Start, certificates: Certificates, peers: Peers, workers: int
    ) -> None:
        target = peers.listen()
        daemon = culvert(relay_service(certificates, 0, target.port), header=SHORT, workers=workers)
        sock = peers.dial(daemon.port("echo"), receive_buffer=8192)
        peer = TlsPeer(sock, client_context(trust=certificates.ca.cert), server=False)
        peer.handshake()
        backend = target.accept()
        backend.settimeout(0.2)
        data = pattern(50_000_000)
        with pytest.raises(TimeoutError):
            backend.sendall(data)  # until every buffer on the way is full
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log("Ending 1 connection")
        received = read_all(peer)
        assert data.startswith(received)
        peer.close()
        ended(daemon, CUT_SHORT)

    def test_one_that_reads_nothing_does_not_hold_it(
        self, culvert: Start, certificates: Certificates, peers: Peers
    ) -> None:
        target = peers.listen()
        daemon = culvert(relay_service(certificates, 0, target.port), header=SHORT)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        backend = target.accept()
        backend.settimeout(0.2)
        with pytest.raises(TimeoutError):
            backend.sendall(pattern(50_000_000))
        started = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        ended(daemon, CUT_SHORT)
        assert time.monotonic() - started < 6
        peer.close()

    @processes
    def test_one_in_its_handshake_is_closed(
        self, culvert: Start, certificates: Certificates, peers: Peers, workers: int
    ) -> None:
        daemon = culvert(echo_service(certificates), header=SHORT, workers=workers)
        sock = peers.dial(daemon.port("echo"))
        daemon.await_log("accepted connection")
        daemon.send_signal(signal.SIGTERM)
        assert sock.recv(1) == b""
        ended(daemon, CUT_SHORT)

    def test_one_that_is_half_closed_is_ended(
        self, culvert: Start, certificates: Certificates, peers: Peers
    ) -> None:
        target = peers.listen()
        daemon = culvert(relay_service(certificates, 0, target.port), header=SHORT)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        backend = PlainPeer(target.accept())
        peer.end()
        assert read_all(backend) == b""
        daemon.send_signal(signal.SIGTERM)
        assert read_all(peer) == b""
        peer.close()
        ended(daemon, CUT_SHORT)

    def test_a_program_hears_the_hang_up(self, culvert: Start, certificates: Certificates) -> None:
        program = "exec = /bin/sleep\nexecArgs = sleep 600"
        daemon = culvert(echo_service(certificates, sink=program), header=SHORT)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        daemon.await_log("Local mode child started")
        daemon.send_signal(signal.SIGTERM)
        assert peer.recv() == b""
        peer.close()
        ended(daemon, CUT_SHORT)

    def test_a_client_services_server_is_told_too(
        self, culvert: Start, certificates: Certificates, peers: Peers
    ) -> None:
        target = peers.listen()
        text = f"[out]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{target.port}\n"
        daemon = culvert(text, header=SHORT)
        plain = PlainPeer(peers.dial(daemon.port("out")))
        server = TlsPeer(target.accept(), server_context(certificates.server), server=True)
        server.handshake()
        daemon.send_signal(signal.SIGTERM)
        assert server.recv() == b""
        assert plain.recv() == b""
        ended(daemon, CUT_SHORT)


class TestForce:
    """A second signal."""

    @processes
    @pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
    def test_it_ends_what_is_left(
        self, culvert: Start, certificates: Certificates, workers: int, second: signal.Signals
    ) -> None:
        daemon = culvert(echo_service(certificates), header=LONG, workers=workers)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(WAITING)
        daemon.send_signal(second)
        assert peer.recv() == b""
        peer.close()
        ended(daemon, CUT_SHORT)
        assert daemon.log.find("Told to stop once more: ending the connections that are left")

    def test_without_patience_it_ends_at_once_with_0(
        self, culvert: Start, certificates: Certificates
    ) -> None:
        daemon = culvert(echo_service(certificates), header=HEADER + "drainTimeout = 0\n", workers=2)
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        assert peer.recv() == b""
        peer.close()
        ended(daemon)


class TestStunnelsPlace:
    """`culvert stunnel` ends at once, as stunnel does, unless the file says otherwise."""

    def test_at_once(self, culvert: Start, certificates: Certificates) -> None:
        daemon = culvert(echo_service(certificates), header=HEADER, command=("stunnel",))
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        assert peer.recv() == b""
        peer.close()
        ended(daemon)

    def test_the_file_decides(self, culvert: Start, certificates: Certificates) -> None:
        daemon = culvert(echo_service(certificates), header=LONG, command=("stunnel",))
        peer = open_tls(daemon.port("echo"), certificates.ca.cert)
        echo(peer)
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log(WAITING)
        echo(peer)
        finish(peer)
        ended(daemon)


def left_from_before(culvert: Start, certificates: Certificates, port: int) -> tuple[Culvert, int, TlsPeer]:
    """A daemon of one worker that has reloaded; the worker of before, and the connection that keeps it."""
    services = echo_service(certificates, port)
    daemon = culvert(services, header=LONG, workers=1)
    (first,) = children(daemon.pid)
    old = open_tls(port, certificates.ca.cert)
    echo(old)
    mark = daemon.reload(services)
    daemon.await_log("Accepting new connections", since=mark)
    return daemon, first, old


class TestLingering:
    """Workers from before a reload."""

    @processes
    def test_a_reload_has_a_deadline_where_it_is_asked_for(
        self, culvert: Start, certificates: Certificates, port: int, workers: int
    ) -> None:
        services = echo_service(certificates, port)
        header = LONG + "reloadDrainTimeout = 0.3\n"
        daemon = culvert(services, header=header, workers=workers)
        old = open_tls(port, certificates.ca.cert)
        echo(old)
        daemon.reload(services)
        assert old.recv() == b""
        old.close()
        told = daemon.await_log(r"reloadDrainTimeout exceeded(?:.*\(pid (\d+)\))?")
        echo_again = open_tls(port, certificates.ca.cert)
        echo(echo_again)
        finish(echo_again)
        if told[1]:
            daemon.await_log(rf"\(pid {told[1]}\) ended")  # else a stop finds its connection ended early
        daemon.stop()

    def test_sigterm_ends_one_that_is_listed(
        self, culvert: Start, certificates: Certificates, port: int
    ) -> None:
        daemon, first, old = left_from_before(culvert, certificates, port)
        new = open_tls(port, certificates.ca.cert)
        echo(new)
        daemon.send_signal(signal.SIGUSR2)
        pid = int(daemon.await_log(r"Worker 0 \(pid (\d+)\) is left from before a reload")[1])
        assert pid == first
        os.kill(pid, signal.SIGTERM)
        assert old.recv() == b""
        old.close()
        daemon.await_log(rf"Worker 0 \(pid {pid}\) ended with status 0")
        echo(new)
        finish(new)
        daemon.stop()

    def test_a_stop_of_all_processes_gives_it_its_time(
        self, culvert: Start, certificates: Certificates, port: int
    ) -> None:
        """A service manager that signals every process of a service means the service."""
        daemon, _, old = left_from_before(culvert, certificates, port)
        for pid in reversed([daemon.pid, *children(daemon.pid)]):
            os.kill(pid, signal.SIGTERM)
        daemon.await_log(WAITING)
        time.sleep(0.7)  # longer than the worker waits for the supervisor's word
        echo(old)
        finish(old)
        ended(daemon)
