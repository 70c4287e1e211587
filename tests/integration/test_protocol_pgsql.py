"""PostgreSQL through a tunnel at either end, with psql, the real server, and stunnel4 as the other tunnel."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates
from .foreground import Postgres, free_port
from .harness import PATIENCE, Culvert, eventually, require
from .peers import Peers
from .stunnel import Stunnel

Start = Callable[..., Culvert]

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
CANCEL_REQUEST = struct.pack("!iIiI", 16, 80877102, 1, 2)

SECURED = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"


@dataclass(frozen=True)
class World:
    """A server with TLS, and a daemon with a service for each case."""

    server: Postgres
    daemon: Culvert


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    require("psql")
    trust = f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
    credentials = f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
    folder = tmp_path_factory.mktemp("pgsql")
    with Postgres(certificates.server) as server:
        services = (
            f"[both]\nclient = yes\naccept = 127.0.0.1:0\nconnect = {folder}/tunnel\n"
            f"protocol = pgsql\n{trust}"
            f"[middle]\naccept = {folder}/tunnel\nconnect = 127.0.0.1:{server.port}\n"
            f"protocol = pgsql\n{credentials}"
            f"[client]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{server.port}\n"
            f"protocol = pgsql\n{trust}"
            f"[server]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{server.port}\n"
            f"protocol = pgsql\n{credentials}"
            f"[gone]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{free_port()}\n"
            f"protocol = pgsql\n{credentials}"
        )
        with Culvert(folder, services) as daemon:
            yield World(server, daemon)


def psql(port: int, mode: str, query: str, trust: Path | None = None) -> subprocess.CompletedProcess[str]:
    """One query; `mode` is libpq's sslmode."""
    where = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode={mode} connect_timeout=10"
    if trust is not None:
        where += f" sslrootcert={trust}"
    environment = {**os.environ, "PGAPPNAME": "test", "PGGSSENCMODE": "disable"}
    return subprocess.run(
        [require("psql"), where, "-XAtc", query],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment,
    )


def test_a_client_tunnel_secures_psql(world: World) -> None:
    ran = psql(world.daemon.port("client"), "disable", SECURED)
    assert ran.stdout.strip() == "t|TLSv1.3", ran.stderr


def test_psql_needs_no_sslmode_in_front_of_a_client_tunnel(world: World) -> None:
    ran = psql(world.daemon.port("client"), "prefer", SECURED)
    assert ran.stdout.strip() == "t|TLSv1.3", ran.stderr


def test_many_rows_come_through_a_client_tunnel(world: World) -> None:
    ran = psql(
        world.daemon.port("client"), "disable", "select repeat('x', 100) from generate_series(1, 20000)"
    )
    assert len(ran.stdout) == 20000 * 101, ran.stderr


def test_a_query_is_cancelled_through_tunnels_at_both_ends(world: World) -> None:
    port = world.daemon.port("both")
    where = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
    process = subprocess.Popen(
        [require("psql"), where, "-XAtc", "select 'here', pg_sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        running = (
            "select count(*) from pg_stat_activity where query like 'select ''here''%' and state = 'active'"
        )
        eventually(lambda: psql(port, "disable", running).stdout.strip() == "1", "the query")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert "canceling statement due to user request" in told


def test_a_server_tunnel_takes_psql_with_a_verified_certificate(
    world: World, certificates: Certificates
) -> None:
    ran = psql(world.daemon.port("server"), "verify-full", "select 6 * 7", certificates.ca.cert)
    assert ran.stdout.strip() == "42", ran.stderr


def test_a_session_in_clear_is_told_what_to_do(world: World) -> None:
    mark = world.daemon.log.mark()
    ran = psql(world.daemon.port("server"), "disable", "select 1")
    assert ran.returncode == 2
    assert "this server takes TLS connections only: set sslmode=require" in ran.stderr
    world.daemon.await_log(r"LOG3.*Negotiation failed for 127\.0\.0\.1:\d+.*: .* in clear", since=mark)


def test_a_backend_that_is_gone_is_told_inside_tls(world: World) -> None:
    ran = psql(world.daemon.port("gone"), "require", "select 1")
    assert ran.returncode == 2
    assert "the database server cannot be reached at the moment" in ran.stderr


def test_a_cancel_request_in_clear_gets_nowhere(world: World, peers: Peers) -> None:
    mark = world.daemon.log.mark()
    sock = peers.dial(world.daemon.port("server"))
    sock.sendall(CANCEL_REQUEST)
    assert sock.recv(1) == b""
    world.daemon.await_log("LOG3.*CancelRequest", since=mark)


def test_what_is_sent_in_clear_behind_the_request_never_reaches_the_server(
    world: World, peers: Peers, certificates: Certificates
) -> None:
    mark = world.daemon.log.mark()
    sock = peers.dial(world.daemon.port("server"))
    sock.sendall(SSL_REQUEST + b"Q\0\0\0\x0dselect 1\0")
    assert sock.recv(1) == b"S"
    world.daemon.await_log(r"LOG4.*14 byte\(s\) that 127\.0\.0\.1:\d+ sent in clear", since=mark)
    context = ssl.create_default_context(cafile=str(certificates.ca.cert))
    with context.wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(struct.pack("!iI", 23, 3 << 16) + b"user\0postgres\0\0")
        assert tls.recv(1) == b"R"  # AuthenticationOk: the first that it heard was the StartupMessage


def test_a_request_in_single_bytes(world: World, peers: Peers, certificates: Certificates) -> None:
    sock = peers.dial(world.daemon.port("server"))
    for byte in bytes.fromhex("0000000804d21630"):  # a GSSENCRequest first, as libpq with a ticket sends it
        sock.send(bytes((byte,)))
    assert sock.recv(1) == b"N"
    for byte in SSL_REQUEST:
        sock.send(bytes((byte,)))
    assert sock.recv(1) == b"S"
    context = ssl.create_default_context(cafile=str(certificates.ca.cert))
    with context.wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(struct.pack("!iI", 23, 3 << 16) + b"user\0postgres\0\0")
        assert tls.recv(1) == b"R"


def test_a_client_may_begin_with_tls_and_gets_its_protocol(
    world: World, peers: Peers, certificates: Certificates
) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca.cert))
    context.set_alpn_protocols(["postgresql"])
    sock = peers.dial(world.daemon.port("server"))
    with context.wrap_socket(sock, server_hostname="localhost") as tls:
        assert tls.selected_alpn_protocol() == "postgresql"
        tls.sendall(struct.pack("!iI", 23, 3 << 16) + b"user\0postgres\0\0")
        assert tls.recv(1) == b"R"


def test_a_server_without_tls_is_refused_and_psql_told(culvert: Start, peers: Peers) -> None:
    listener = peers.listen()
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{listener.port}\nprotocol = pgsql\n"
    )
    sock = peers.dial(daemon.port("c"))
    server = listener.accept()
    assert server.recv(8, socket.MSG_WAITALL) == SSL_REQUEST
    server.sendall(b"N")
    assert sock.recv(1024).startswith(b"E")
    assert sock.recv(1) == b""
    daemon.await_log(r"LOG3.*the server does not take TLS connections \(it answers N to SSLRequest\)")


@pytest.mark.parametrize("end", ["client", "server"])
def test_stunnel_at_the_other_end(
    world: World, culvert: Start, certificates: Certificates, tmp_path: Path, end: str
) -> None:
    credentials = f"cert = {certificates.server.chain}\nkey = {certificates.server.key}\n"
    folder = tmp_path / "stunnel"
    folder.mkdir()
    if end == "client":
        # Culvert asks stunnel for TLS, and stunnel's server speaks to PostgreSQL.
        text = (
            f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{world.server.port}\n"
            f"protocol = pgsql\n{credentials}"
        )
        with Stunnel(folder, text) as other:
            daemon = culvert(
                f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{other.ports['s']}\n"
                f"protocol = pgsql\nCAfile = {certificates.ca.cert}\nverifyChain = yes\n"
            )
            assert psql(daemon.port("c"), "disable", "select 6 * 7").stdout.strip() == "42"
        return
    text = (
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{world.daemon.port('server')}\n"
        f"protocol = pgsql\nCAfile = {certificates.ca.cert}\nverifyChain = yes\n"
    )
    with Stunnel(folder, text) as other:
        assert psql(other.ports["c"], "disable", "select 6 * 7").stdout.strip() == "42"
