"""Inetd mode on descriptors that the test hands over: what is carried, how it ends, what is left alone."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import Jail, command, needs_root
from .echo import echo, finish
from .handed import ARRANGEMENTS, Duplex, Handed, arrange, tcp_pair
from .harness import AT_ONCE, HEADER, PATIENCE, Culvert, eventually, require
from .peers import (
    Peer,
    Peers,
    PlainPeer,
    TlsPeer,
    TruncatedError,
    background,
    client_context,
    digest,
    pattern,
    read_all,
    read_exactly,
    reset,
    server_context,
)

BULK = 700_000
"""More than pipes and sockets hold: back-pressure is part of it."""


@pytest.fixture
def server(certificates: Certificates) -> str:
    """A server's options, without its target."""
    return f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"


@pytest.fixture
def client(certificates: Certificates) -> str:
    """A client's options, without its target."""
    return f"client = yes\nCAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"


@contextmanager
def handed(kind: str, folder: Path, services: str) -> Iterator[tuple[Handed, Duplex]]:
    """A run on descriptors of this kind, and the other end of them."""
    outer, stdin, stdout = arrange(kind)
    with Handed(folder, services, stdin, stdout) as process:
        try:
            yield process, outer
        finally:
            outer.close()


def carry(process: Handed, first: Peer, second: Peer) -> None:
    """Carries much each way, ended by `first` and then by `second`, and the process with it."""
    data = pattern(BULK)
    sending = background(first.send, data)
    assert digest(read_exactly(second, BULK)) == digest(data)
    sending.result(PATIENCE)
    first.end()
    assert second.recv() == b""
    sending = background(second.send, data)
    assert digest(read_exactly(first, BULK)) == digest(data)
    sending.result(PATIENCE)
    second.end()
    assert first.recv() == b""
    lines = process.wait()
    assert lines[-1].endswith(f"Connection closed: {BULK} byte(s) sent to TLS, {BULK} byte(s) sent to socket")


@pytest.mark.parametrize(
    ("kind", "first"), [*((kind, "tls") for kind in ARRANGEMENTS), ("tcp", "plain"), ("pipes", "plain")]
)
def test_a_server_carries_both_ways_and_ends(
    kind: str, first: str, *, tmp_path: Path, server: str, certificates: Certificates, peers: Peers
) -> None:
    listener = peers.listen()
    with handed(kind, tmp_path, f"{server}connect = 127.0.0.1:{listener.port}\n") as (process, outer):
        tls = outer.as_tls(certificates)
        tls.handshake()
        plain = PlainPeer(listener.accept())
        carry(process, *((tls, plain) if first == "tls" else (plain, tls)))


@pytest.mark.parametrize(("kind", "first"), [("tcp", "tls"), ("pipes", "tls"), ("pipes", "plain")])
def test_a_client_carries_both_ways_and_ends(
    kind: str, first: str, *, tmp_path: Path, client: str, certificates: Certificates, peers: Peers
) -> None:
    listener = peers.listen()
    with handed(kind, tmp_path, f"{client}connect = 127.0.0.1:{listener.port}\n") as (process, outer):
        tls = TlsPeer(listener.accept(), server_context(certificates.server), server=True)
        tls.handshake()
        plain = outer.as_plain()
        carry(process, *((tls, plain) if first == "tls" else (plain, tls)))


def test_the_log_tells_who_came(tmp_path: Path, server: str, certificates: Certificates) -> None:
    ours, theirs = tcp_pair()
    name = ours.getsockname()
    fd = theirs.detach()
    with ours, Handed(tmp_path, f"service = imaps\n{server}exec = /usr/bin/env\n", fd, fd) as process:
        tls = Duplex(ours.fileno(), ours.fileno()).as_tls(certificates)
        tls.handshake()
        said = read_all(tls).decode().splitlines()
        tls.end()
        lines = process.wait()
    assert f"REMOTE_HOST={name[0]}" in said
    assert f"REMOTE_PORT={name[1]}" in said
    accepted = f"Service [imaps] accepted connection from {name[0]}:{name[1]}"
    assert [line for line in lines if line.endswith("LOG6[main]: Service [imaps] started")]
    assert [line for line in lines if line.endswith(accepted)]


def test_a_file_is_read_to_its_end_and_a_file_is_written(
    tmp_path: Path, client: str, certificates: Certificates, peers: Peers
) -> None:
    listener = peers.listen()
    (tmp_path / "in").write_bytes(pattern(BULK))
    stdin = os.open(tmp_path / "in", os.O_RDONLY)
    stdout = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    with Handed(tmp_path, f"{client}connect = 127.0.0.1:{listener.port}\n", stdin, stdout) as process:
        tls = TlsPeer(listener.accept(), server_context(certificates.server), server=True)
        tls.handshake()
        taken = read_all(tls)
        tls.send(taken)
        tls.end()
        process.wait()
    assert digest((tmp_path / "out").read_bytes()) == digest(pattern(BULK))


def test_no_input_is_an_end_at_once(
    tmp_path: Path, client: str, certificates: Certificates, peers: Peers
) -> None:
    listener = peers.listen()
    null = os.open(os.devnull, os.O_RDWR)
    with Handed(tmp_path, f"{client}connect = 127.0.0.1:{listener.port}\n", null, null) as process:
        tls = TlsPeer(listener.accept(), server_context(certificates.server), server=True)
        tls.handshake()
        assert read_all(tls) == b""
        tls.send(b"into nothing")
        tls.end()
        assert process.wait()[-1].endswith("0 byte(s) sent to TLS, 12 byte(s) sent to socket")


@pytest.mark.parametrize("kind", ["socketpair", "pipes", "terminal"])
def test_flags_that_others_share_are_left_alone(
    kind: str, tmp_path: Path, client: str, certificates: Certificates, peers: Peers
) -> None:
    listener = peers.listen()
    if kind == "terminal":
        master, slave = pty.openpty()
        outer, stdin, stdout = Duplex(master, master), slave, slave
    else:
        outer, stdin, stdout = arrange(kind)
    shared = [os.dup(stdin), os.dup(stdout)]
    services = f"{AT_ONCE}{client}connect = 127.0.0.1:{listener.port}\n"
    try:
        with Handed(tmp_path, services, stdin, stdout) as process:
            tls = TlsPeer(listener.accept(), server_context(certificates.server), server=True)
            tls.handshake()
            outer.sendall(b"a line\n")
            assert read_exactly(tls, 7) == b"a line\n"
            assert [os.get_blocking(fd) for fd in shared] == [True, True]
            process.process.send_signal(signal.SIGTERM)
            process.wait()
        assert [os.get_blocking(fd) for fd in shared] == [True, True]
    finally:
        outer.close()
        for fd in shared:
            os.close(fd)


@needs_root
def test_a_flag_that_must_be_set_is_taken_back(
    tmp_path: Path, client: str, certificates: Certificates, peers: Peers
) -> None:
    """Without /proc, or where a pipe is another user's, it cannot be opened anew."""
    listener = peers.listen()
    outer, stdin, stdout = arrange("pipes")
    shared = os.dup(stdin)
    hidden = [require("unshare"), "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    try:
        with Handed(
            tmp_path,
            f"{AT_ONCE}{client}connect = 127.0.0.1:{listener.port}\n",
            stdin,
            stdout,
            argv=lambda path: [*hidden, *command("run", path)],
        ) as process:
            tls = TlsPeer(listener.accept(), server_context(certificates.server), server=True)
            tls.handshake()
            outer.sendall(b"a line\n")
            assert read_exactly(tls, 7) == b"a line\n"
            assert not os.get_blocking(shared)
            process.process.send_signal(signal.SIGTERM)
            process.wait()
        assert os.get_blocking(shared)
    finally:
        outer.close()
        os.close(shared)


def test_the_configuration_comes_by_a_descriptor(
    tmp_path: Path, server: str, certificates: Certificates
) -> None:
    (tmp_path / "third.conf").write_text(f"{HEADER}{server}exec = /bin/cat\n")
    config = os.open(tmp_path / "third.conf", os.O_RDONLY)
    outer, stdin, stdout = arrange("pipes")
    with Handed(
        tmp_path,
        "",
        stdin,
        stdout,
        argv=lambda _: command("stunnel", "-fd", str(config)),
        pass_fds=[config],
    ) as process:
        os.close(config)
        tls = outer.as_tls(certificates)
        tls.handshake()
        echo(tls)
        finish(tls)
        process.wait()


def test_the_configuration_cannot_come_by_the_connection(tmp_path: Path, server: str) -> None:
    (tmp_path / "zero.conf").write_text(f"{server}exec = /bin/cat\n")
    with (tmp_path / "zero.conf").open() as file:
        done = subprocess.run(
            command("stunnel", "-fd", "0"),
            stdin=file,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "descriptor 0 is the connection" in done.stderr


@pytest.mark.parametrize(
    ("services", "arrives"), [("foreground = yes\nconnect = 127.0.0.1:1\n", 1), ("nonsense = 1\n", 0)]
)
def test_a_client_never_sees_the_log(
    services: str, arrives: int, tmp_path: Path, server: str, certificates: Certificates
) -> None:
    """inetd leaves the client's socket on standard error too."""
    ours, theirs = tcp_pair()
    fd = theirs.detach()
    with ours, Handed(tmp_path, server + services, fd, fd, header="syslog = no\n", stderr=fd) as process:
        peer = TlsPeer(ours, client_context(trust=certificates.ca.cert), server=False)
        if arrives:
            peer.handshake()
            with pytest.raises((ConnectionError, TruncatedError)):
                peer.recv()
        else:
            assert ours.recv(100) == b""
        process.wait(0 if arrives else 1)


def test_signals(tmp_path: Path, server: str, certificates: Certificates) -> None:
    log = tmp_path / "log"
    services = f"output = {log}\n{AT_ONCE}{server}exec = /bin/cat\n"
    with handed("tcp", tmp_path, services) as (process, outer):
        tls = outer.as_tls(certificates)
        tls.handshake()
        process.process.send_signal(signal.SIGHUP)
        process.await_log("nothing to reload")
        process.process.send_signal(signal.SIGUSR2)
        process.await_log(r"connection \[0\] from .*: open")
        log.rename(tmp_path / "old")
        process.process.send_signal(signal.SIGUSR1)
        eventually(log.exists, "the new log file")
        echo(tls)
        process.process.send_signal(signal.SIGTERM)
        assert any("Received SIGTERM" in line for line in process.wait())
    assert "Received SIGTERM" in log.read_text()


def test_a_signal_lets_the_connection_finish(tmp_path: Path, server: str, certificates: Certificates) -> None:
    with handed("tcp", tmp_path, f"{server}exec = /bin/cat\n") as (process, outer):
        tls = outer.as_tls(certificates)
        tls.handshake()
        echo(tls)
        process.process.send_signal(signal.SIGTERM)
        process.await_log(r"Stopping: waiting for 1 connection\(s\) to finish, at most 30 s")
        echo(tls)
        finish(tls)
        assert process.wait()[-1].endswith("All connections have finished")


@pytest.mark.parametrize(
    ("timeout", "signals", "why"),
    [("0.1", 1, "drainTimeout exceeded"), ("60", 2, "Told to stop once more")],
)
def test_a_connection_that_stays_is_ended_in_order(
    timeout: str, signals: int, why: str, *, tmp_path: Path, server: str, certificates: Certificates
) -> None:
    services = f"drainTimeout = {timeout}\n{server}exec = /bin/cat\n"
    with handed("tcp", tmp_path, services) as (process, outer):
        tls = outer.as_tls(certificates)
        tls.handshake()
        echo(tls)
        for _ in range(signals):
            process.process.send_signal(signal.SIGTERM)
            process.await_log("Stopping: waiting for 1 connection")
        assert read_all(tls) == b""  # close_notify, and no RST
        tls.close()
        process.await_log(why)
        process.wait(4)


@needs_root
def test_the_jail_and_the_identity_hold(tmp_path: Path, server: str, certificates: Certificates) -> None:
    jail = Jail(tmp_path)
    services = f"{jail.options}{server}exec = /bin/busybox\nexecArgs = busybox id\n"
    with handed("pipes", tmp_path, services) as (process, outer):
        tls = outer.as_tls(certificates)
        tls.handshake()
        assert b"uid=65534" in read_all(tls)
        tls.end()
        process.wait()
    assert not jail.pid_file.exists()


def test_a_failed_handshake_is_no_failed_process(tmp_path: Path, server: str) -> None:
    with handed("tcp", tmp_path, f"{server}exec = /bin/cat\n") as (process, outer):
        outer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        outer.shutdown(socket.SHUT_WR)
        assert any("SSL_accept" in line for line in process.wait())


@pytest.mark.parametrize("end", ["input", "output"])
def test_a_client_on_one_of_two_descriptors_is_judged(tmp_path: Path, server: str, end: str) -> None:
    """The other one is a pipe, which has no address."""
    ours, theirs = tcp_pair()
    reading, writing = os.pipe()
    pair = (theirs.detach(), writing) if end == "input" else (reading, theirs.detach())
    other = reading if end == "input" else writing
    with ours, Handed(tmp_path, f"{server}exec = /bin/cat\nallowFrom = 127.0.0.0/8\n", *pair) as process:
        address = ours.getsockname()
        process.await_log(rf"accepted connection from {address[0]}:{address[1]}$")
        ours.shutdown(socket.SHUT_WR)
        os.close(other)
        process.wait()


@pytest.mark.parametrize("access", ["denyFrom = 127.0.0.0/8", "acceptProxy = yes\ntrustProxy = 192.0.2.1"])
def test_a_client_that_broke_off_is_not_served(tmp_path: Path, client: str, access: str) -> None:
    """It has no address any more for the rules, and what it sent could still be read and carried."""
    ours, theirs = tcp_pair()
    ours.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" if "Proxy" in access else b"sent all the same\n")
    reset(ours)
    fd = theirs.detach()
    with socket.create_server(("127.0.0.1", 0)) as target:
        options = f"{client}connect = localhost:{target.getsockname()[1]}\n{access}\n"
        with Handed(tmp_path, options, fd, fd) as process:
            lines = process.wait()
        target.setblocking(False)
        with pytest.raises(BlockingIOError):
            target.accept()
    assert any("broke off before it could be served" in line for line in lines)


def test_a_listening_socket_is_refused(tmp_path: Path, server: str) -> None:
    (tmp_path / "wait.conf").write_text(f"{server}exec = /bin/cat\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = subprocess.run(
            command("run", tmp_path / "wait.conf"),
            stdin=listening.fileno(),
            stdout=listening.fileno(),
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 1
    assert "listens for connections" in done.stderr
    assert "Accept=yes" in done.stderr


def test_a_daemon_does_not_become_inetd(tmp_path: Path, server: str) -> None:
    """Nothing changes for a running daemon whose file loses its sections."""
    with Culvert(tmp_path, f"{server}[echo]\naccept = 127.0.0.1:0\nexec = /bin/cat\n") as daemon:
        mark = daemon.reload(f"{server}exec = /bin/cat\n")
        daemon.await_log("no .service. section any more", since=mark)
        daemon.await_log("Configuration failed", since=mark)
