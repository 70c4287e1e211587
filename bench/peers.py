"""The two programs that are compared: their configuration, start and end."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.errors import MeasureError

CIPHERSUITE = "TLS_AES_256_GCM_SHA384"
CIPHER = "ECDHE-ECDSA-AES256-GCM-SHA384"
GROUP = "X25519"
"""The group of every measure but one: the first choice of Debian's stunnel, which has none that is newer."""

_START_LIMIT = 15.0
_END_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """A program to compare: `command` is followed by the path of a configuration."""

    name: str
    command: tuple[str, ...]
    options: str


STUNNEL = Program("stunnel", ("stunnel4",), "")
CULVERT = Program("Culvert", (sys.executable, "-m", "culvert", "run"), "workers = 1\ndrainTimeout = 0\n")

_DAEMON = """\
foreground = quiet
output = {log}
syslog = no
pid =
"""
_SERVER = """\
[server]
accept = 127.0.0.1:{accept}
connect = 127.0.0.1:{connect}
cert = {certificate}
ciphers = {cipher}
ciphersuites = {ciphersuite}
"""
_CLIENT = """\
[client]
client = yes
accept = 127.0.0.1:{accept}
connect = 127.0.0.1:{connect}
CAfile = {certificate}
verifyChain = yes
checkIP = 127.0.0.1
ciphers = {cipher}
ciphersuites = {ciphersuite}
"""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a tunnel: its role, the port it leads to, and whether its group is pinned."""

    client: bool
    connect: int
    pinned: bool = True


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A running end; the times are of the monotonic clock, in seconds."""

    pid: int
    port: int
    spawned: float
    accepted: float


def make_certificate(path: Path) -> None:
    """Write a throw-away certificate that is its own CA, ECDSA P-256, and its key into one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "culvert bench")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=60))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path.touch(0o600)
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@contextlib.contextmanager
def running(program: Program, end: End, folder: Path, certificate: Path) -> Iterator[Tunnel]:
    """One end in a process of its own, from its first accepted connection to the end of the block."""
    port = _free_port()
    log = folder / f"{port}.log"
    configuration = folder / f"{port}.conf"
    configuration.write_text(_configuration(program, end, port, log, certificate))
    spawned = time.monotonic()
    # A session of its own: whatever the program forks can be ended by the group's number.
    process = subprocess.Popen(
        [*program.command, str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        start_new_session=True,
    )
    try:
        _await_listening(program, process, port, log)
        yield Tunnel(process.pid, port, spawned, time.monotonic())
    finally:
        _end(process)
        configuration.unlink()
        log.unlink(missing_ok=True)


def _configuration(program: Program, end: End, port: int, log: Path, certificate: Path) -> str:
    section = (_CLIENT if end.client else _SERVER).format(
        accept=port,
        connect=end.connect,
        certificate=certificate,
        cipher=CIPHER,
        ciphersuite=CIPHERSUITE,
    )
    pinned = f"curves = {GROUP}\n" if end.pinned else ""
    return _DAEMON.format(log=log) + program.options + section + pinned


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await_listening(program: Program, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise MeasureError(f"{program.name} ended with status {process.returncode}: {_last_line(log)}")
        time.sleep(0.001)
    raise MeasureError(f"{program.name} accepts no connection after {_START_LIMIT:.0f} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    return lines[-1] if lines else "its log is empty"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
