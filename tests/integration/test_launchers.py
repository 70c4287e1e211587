"""Inetd mode under the programs that it is for, and with other TLS programs at the other end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LogFile, command, fixed_ports
from .echo import echo, finish, open_tls
from .harness import HEADER, PATIENCE, eventually, require
from .openssl import s_client
from .stunnel import Stunnel

LINE = b"hello through the tunnel\n"


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is free."""
    with fixed_ports(1) as ports:
        yield ports[0]


@contextmanager
def launched(argv: Sequence[str], folder: Path, port: int, ready: str) -> Iterator[LogFile]:
    """A launcher that listens on `port`, until the end; what it and its children say on standard error."""
    log = LogFile(folder / "launcher.log")
    with log.path.open("wb") as file:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, cwd=folder
        )
    try:
        log.wait(ready)
        yield log
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
def server(tmp_path: Path, certificates: Certificates) -> Path:
    """A server's configuration that gives back what it gets."""
    leaf = certificates.server
    path = tmp_path / "server.conf"
    path.write_text(f"{HEADER}cert = {leaf.cert}\nkey = {leaf.key}\nexec = /bin/cat\n")
    return path


@pytest.fixture
def client(tmp_path: Path, certificates: Certificates, port: int) -> Path:
    """A client's configuration, for stunnel and for Culvert."""
    path = tmp_path / "client.conf"
    path.write_text(
        f"{HEADER}client = yes\nconnect = 127.0.0.1:{port}\nCAfile = {certificates.ca.cert}\n"
        "verifyChain = yes\ncheckHost = localhost\n"
    )
    return path


def socat(path: Path, port: int, options: str) -> list[str]:
    """socat that runs Culvert for each connection."""
    program = " ".join(command("run", path))
    return [
        *(require("socat"), "-d", "-d", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"),
        f"EXEC:{program}{options}",
    ]


@pytest.mark.parametrize("options", ["", ",pipes", ",pty,rawer"])
def test_socat_runs_a_server(
    options: str, tmp_path: Path, server: Path, port: int, certificates: Certificates
) -> None:
    with launched(socat(server, port, options), tmp_path, port, "listening on") as log:
        peer = open_tls(port, certificates.ca.cert)
        echo(peer)
        finish(peer)
        size = len(LINE)
        log.wait(rf"Connection closed: {size} byte\(s\) sent to TLS, {size} byte\(s\) sent to socket")


def test_socat_runs_one_for_each_client(tmp_path: Path, server: Path, client: Path, port: int) -> None:
    """stunnel, openssl and Culvert are clients, the first and the last in inetd mode themselves."""
    with launched(socat(server, port, ""), tmp_path, port, "listening on") as log:
        for argv in ([require("stunnel4"), str(client)], command("run", client)):
            done = subprocess.run(argv, input=LINE, capture_output=True, timeout=PATIENCE, check=True)
            assert done.stdout == LINE
        eventually(lambda: len(log.find("Connection closed: 25 ")) == 2, "the end of both")


@pytest.mark.parametrize(
    "how", [["--inetd", "--accept"], ["--accept"]], ids=["standard input", "descriptor 3"]
)
def test_systemd_passes_what_it_accepted(
    how: list[str], tmp_path: Path, server: Path, port: int, certificates: Certificates
) -> None:
    argv = [require("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", *how]
    argv += [f"--setenv=PATH={os.environ['PATH']}", *command("run", server)]
    with launched(argv, tmp_path, port, "Listening on") as log:
        peer = open_tls(port, certificates.ca.cert)
        host, own = peer.sock.getsockname()
        echo(peer)
        finish(peer)
        log.wait(rf"Service \[stunnel\] accepted connection from {host}:{own}$")
        log.wait("Connection closed: 25 byte")


def test_openssl_is_a_client(tmp_path: Path, server: Path, port: int) -> None:
    server.write_text(server.read_text().replace("/bin/cat", "/bin/echo\nexecArgs = echo greetings"))
    with launched(socat(server, port, ",pipes"), tmp_path, port, "listening on"):
        assert s_client(port).received == "greetings\n"


def test_a_client_of_stunnel(tmp_path: Path, certificates: Certificates, client: Path, port: int) -> None:
    leaf = certificates.server
    with Stunnel(
        tmp_path,
        f"cert = {leaf.cert}\nkey = {leaf.key}\n[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\n",
    ):
        done = subprocess.run(
            command("run", client), input=LINE, capture_output=True, timeout=PATIENCE, check=True
        )
    assert done.stdout == LINE
