"""Backends that are down, silent or no TLS, and programs that cannot be executed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .daemon import Footprint, await_footprint, fixed_ports, footprint
from .echo import await_end, knock, open_plain, trusting
from .harness import Culvert
from .peers import Listener, TlsPeer, TruncatedError, dial


@pytest.fixture(scope="module")
def silent() -> Iterator[Listener]:
    """A backend that the test plays."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that cannot be executed."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "plain").write_text("just text\n")
    (folder / "plain").chmod(0o644)
    (folder / "lost").write_text("#!/nonexistent/interpreter\n")
    (folder / "lost").chmod(0o755)
    (folder / "noise").write_bytes(b"\x7fELF" + bytes(60))
    (folder / "noise").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, silent: Listener, programs: Path
) -> Iterator[Culvert]:
    """Services that lead nowhere."""
    leaf = certificates.server
    credentials = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    with fixed_ports(1) as (dead,):
        sinks = {
            "down": f"connect = 127.0.0.1:{dead}",
            "unknown": "connect = no-such-host.invalid:80\ndelay = yes",
            "missing": "exec = /nonexistent/program",
            "plain": f"exec = {programs}/plain",
            "lost": f"exec = {programs}/lost",
            "noise": f"exec = {programs}/noise",
            "folder": f"exec = {programs}",
        }
        services = "".join(
            f"[{name}]\naccept = 127.0.0.1:0\n{sink}\n{credentials}" for name, sink in sinks.items()
        )
        services += f"[unix]\naccept = 127.0.0.1:0\nconnect = {programs}/no.socket\n{credentials}"
        services += f"[client-down]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{dead}\n"
        services += f"[client]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{silent.port}\n"
        services += "TIMEOUTbusy = 1\n"
        with Culvert(tmp_path_factory.mktemp("nowhere"), services, workers=1) as daemon:
            knock(daemon.port("client-down"))
            daemon.await_log("Connection reset")
            yield daemon


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: Culvert) -> Iterator[None]:
    """Counts processes, descriptors and temporary files before and after."""
    before: Footprint = footprint(daemon.pid)
    yield
    await_footprint(daemon.pid, before)
    assert not list(daemon.temporary.iterdir())


def visit(daemon: Culvert, service: str, trust: Path) -> str:
    """A TLS client that is served nothing; gives the lines of its connection."""
    mark = daemon.log.mark()
    peer = TlsPeer(dial(daemon.port(service)), trusting(trust), server=False)
    client = peer.sock.getsockname()[1]
    with contextlib.suppress(ConnectionError, SSL.Error, TruncatedError):
        peer.handshake()
    await_end(peer)
    return story(daemon, client, mark)


def story(daemon: Culvert, client: int, since: int) -> str:
    """The lines of a client's connection when it is over."""
    accepted = daemon.await_log(
        rf"LOG5\[(\d+)\]: .* accepted connection from 127\.0\.0\.1:{client}$", since=since
    )
    identifier = accepted[1]
    daemon.await_log(
        rf"LOG5\[{identifier}\]: Connection (closed|reset): 0 byte\(s\) sent to TLS, 0", since=since
    )
    return "\n".join(line for line in daemon.log.lines[since:] if f"[{identifier}]: " in line)


def test_a_backend_that_is_down(daemon: Culvert, certificates: Certificates) -> None:
    assert "Connection refused" in visit(daemon, "down", certificates.ca.cert)


def test_a_unix_backend_that_is_down(daemon: Culvert, certificates: Certificates, programs: Path) -> None:
    told = visit(daemon, "unix", certificates.ca.cert)
    assert f"{programs}/no.socket" in told
    assert "No such file or directory" in told


def test_a_backend_without_an_address(daemon: Culvert, certificates: Certificates) -> None:
    assert "no-such-host.invalid" in visit(daemon, "unknown", certificates.ca.cert)


@pytest.mark.parametrize(
    ("service", "program", "reason"),
    [
        ("missing", "/nonexistent/program", "No such file or directory"),
        ("plain", "/plain", "Permission denied"),
        ("lost", "/lost", "No such file or directory"),
        ("noise", "/noise", "Exec format error"),
        ("folder", "/programs", "Permission denied"),
    ],
)
def test_a_program_that_cannot_be_executed(
    daemon: Culvert, certificates: Certificates, service: str, program: str, reason: str
) -> None:
    told = visit(daemon, service, certificates.ca.cert)
    assert program in told
    assert reason in told


def test_the_client_end_of_a_server_that_is_down(daemon: Culvert) -> None:
    mark = daemon.log.mark()
    client = knock(daemon.port("client-down"))
    assert "Connection refused" in story(daemon, client, mark)


@pytest.mark.parametrize(
    "answer",
    [b"220 mail.example.com ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(500), b"\x16\x03"],
)
def test_a_server_that_speaks_no_tls(daemon: Culvert, silent: Listener, answer: bytes) -> None:
    mark = daemon.log.mark()
    peer = open_plain(daemon.port("client"))
    client = peer.sock.getsockname()[1]
    server = silent.accept()
    server.sendall(answer)
    server.close()
    await_end(peer)
    told = story(daemon, client, mark)
    assert "LOG3[" in told
    assert "SSL_connect: " in told


def test_a_server_that_says_nothing(daemon: Culvert, silent: Listener) -> None:
    mark = daemon.log.mark()
    started = time.monotonic()
    peer = open_plain(daemon.port("client"))
    client = peer.sock.getsockname()[1]
    server = silent.accept()
    await_end(peer)
    assert 0.9 < time.monotonic() - started < 6
    server.close()
    assert "TIMEOUTbusy" in story(daemon, client, mark)
