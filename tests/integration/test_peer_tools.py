"""The tools that people use through a tunnel: openssl, curl, redis-cli and nc."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert, LogLines, eventually, require
from .peers import Peers, PlainPeer, digest, pattern, read_all

Start = Callable[..., Culvert]


@contextlib.contextmanager
def running(*command: str) -> Iterator[LogLines]:
    """A process in the background, by its output; it ends with the block."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    output = LogLines(process.stdout)
    try:
        yield output
    finally:
        process.kill()
        process.wait(PATIENCE)
        output.wait_end()
        assert process.stdin is not None
        process.stdin.close()


def run(*command: str, data: bytes = b"") -> bytes:
    """What a command that ends well writes to its standard output."""
    finished = subprocess.run(command, input=data, capture_output=True, timeout=30, check=False)
    assert finished.returncode == 0, f"{command} ended with {finished.returncode}: {finished.stderr!r}"
    return finished.stdout


def both_ends(certificates: Certificates, backend: str) -> str:
    """A plain port [in], a TLS port [out] and the backend behind them, all in one daemon.

    The client's target is a Unix socket, so that no port has to be known before the start.
    """
    return (
        f"[in]\nclient = yes\naccept = 127.0.0.1:0\nconnect = {certificates.folder}/tunnel\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
        f"[middle]\naccept = {certificates.folder}/tunnel\nconnect = {backend}\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
        f"[out]\naccept = 127.0.0.1:0\nconnect = {backend}\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client(culvert: Start, certificates: Certificates, flag: str) -> None:
    daemon = culvert(
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/cat\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )
    target = ("-connect", f"127.0.0.1:{daemon.port('s')}", "-verifyCAfile", str(certificates.ca.cert))
    command = (require("openssl"), "s_client", flag, "-quiet", "-verify_return_error", "-no_ign_eof", *target)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    output = LogLines(process.stdout)
    process.stdin.write("back and forth\n")
    process.stdin.flush()
    output.wait("back and forth")
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    output.wait_end()


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_openssl_s_server(culvert: Start, certificates: Certificates, peers: Peers, flag: str) -> None:
    command = (require("openssl"), "s_server", flag, "-rev", "-accept", "127.0.0.1:0")
    credentials = ("-cert", str(certificates.server.cert), "-key", str(certificates.server.key))
    with running(*command, *credentials) as output:
        port = output.wait(r"ACCEPT \S+:(\d+)").group(1)
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
            f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
        )
        peer = PlainPeer(peers.dial(daemon.port("c")))
        peer.send(b"stressed\n")
        assert peer.sock.makefile("rb").readline() == b"desserts\n"


def test_curl(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    """HTTPS from curl to the daemon, and plain HTTP from curl through both ends of a tunnel."""
    (tmp_path / "page").write_bytes(pattern(3_000_000))
    with busybox_httpd(tmp_path) as port:
        daemon = culvert(both_ends(certificates, f"127.0.0.1:{port}"))
        secure = f"https://localhost:{daemon.port('out')}/page"
        plain = f"http://localhost:{daemon.port('in')}/page"
        command = (require("curl"), "-4", "-sSf", "--noproxy", "*", "--max-time", "20")
        for url in (secure, plain):
            page = run(*command, "--cacert", str(certificates.ca.cert), url)
            assert digest(page) == digest(pattern(3_000_000))


@contextlib.contextmanager
def busybox_httpd(folder: Path) -> Iterator[int]:
    """A web server on a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with running(require("busybox"), "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", str(folder)):
        eventually(lambda: answers(port), "the web server")
        yield port


def answers(port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_redis(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    """redis-cli, plain through both ends and with its own TLS to one; the server is on a Unix socket."""
    path = tmp_path / "redis"
    server = (require("redis-server"), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir")
    with running(*server, str(tmp_path)) as output:
        output.wait("Ready to accept connections|ready to accept connections")
        daemon = culvert(both_ends(certificates, str(path)))
        plain = (require("redis-cli"), "-h", "127.0.0.1", "-p", str(daemon.port("in")))
        value = pattern(400_000).hex().encode()
        assert run(*plain, "-x", "set", "key", data=value).strip() == b"OK"
        assert run(*plain, "get", "key").strip() == value
        commands = b"".join(b"set k%d v%d\r\n" % (number, number) for number in range(5000))
        assert b"errors: 0, replies: 5000" in run(*plain, "--pipe", data=commands)
        secure = (require("redis-cli"), "-h", "127.0.0.1", "-p", str(daemon.port("out")), "--tls")
        trust = ("--cacert", str(certificates.ca.cert))
        assert run(*secure, *trust, "get", "k4999").strip() == b"v4999"


def test_nc(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    """nc at both ends: what one says is what the other hears, and its end is the other's end."""
    path = tmp_path / "nc"
    data = pattern(2_000_000)
    listening = subprocess.Popen(
        [require("nc"), "-N", "-l", "-U", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    eventually(path.exists, "nc's socket")
    daemon = culvert(both_ends(certificates, str(path)))
    sending = subprocess.Popen(
        [require("nc"), "-N", "127.0.0.1", str(daemon.port("in"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sending.stdin is not None
    sending.stdin.write(data)
    sending.stdin.close()
    sending.stdin = None
    heard, _ = listening.communicate(b"goodbye", timeout=PATIENCE)
    assert digest(heard) == digest(data)
    answered, _ = sending.communicate(timeout=PATIENCE)
    assert answered == b"goodbye"
    assert (listening.returncode, sending.returncode) == (0, 0)


def test_socat_keeps_a_half_closed_connection(
    culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    """socat's openssl end speaks TLS to the daemon and sends its request's end before it reads."""
    backend = peers.listen()
    daemon = culvert(both_ends(certificates, f"127.0.0.1:{backend.port}"))
    target = f"OPENSSL:localhost:{daemon.port('out')},pf=ip4,cafile={certificates.ca.cert}"
    socat = subprocess.Popen(
        [require("socat"), "-t", "20", "-", target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    plain = PlainPeer(backend.accept())
    assert socat.stdin is not None
    socat.stdin.write(b"request")
    socat.stdin.close()
    socat.stdin = None
    assert read_all(plain) == b"request"
    answer = pattern(2_000_000)
    plain.send(answer)
    plain.end()
    received, _ = socat.communicate(timeout=PATIENCE)
    assert digest(received) == digest(answer)
