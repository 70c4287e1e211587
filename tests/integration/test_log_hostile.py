"""What a peer or a full disk can do to the log: no forged line, no endless one, no harm to connections."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from .certificates import Certificates, Leaf
from .daemon import LOG_LINE, LogFile, command, fixed_ports, needs_root
from .echo import echo, echo_service, finish, open_tls, say_tls
from .harness import PATIENCE, Culvert, eventually
from .peers import TlsPeer, client_context, dial

Start = Callable[..., Culvert]

TEXT_LIMIT = 1024
"""Bytes of a log line behind its date, level and id."""


def named(folder: Path, names: Sequence[str]) -> Leaf:
    """A self-signed certificate whose subject holds these names, whatever they are made of."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, name) for name in names])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return Leaf("named", folder, certificate, key, ())


def present(port: int, trust: Path, leaf: Leaf) -> None:
    """Presents a certificate that is refused."""
    peer = TlsPeer(dial(port), client_context("TLSv1.2", trust=trust, leaf=leaf), server=False)
    with pytest.raises((SSL.Error, ConnectionError)):
        peer.handshake()
    peer.close()


def strict_service(certificates: Certificates) -> str:
    """A service that refuses every certificate of `named`."""
    leaf = certificates.server
    return (
        f"[strict]\naccept = 127.0.0.1:0\nexec = /bin/cat\nverify = 2\nCAfile = {certificates.ca.cert}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        "x\n2026.11.23 06:05:04 LOG5[9]: forged",
        "x\r2026.11.23 06:05:04 LOG5[9]: forged",
        "x\x1b[2J\x1b[31mred\x07",
        "x\x7f\x08\x08\x01",
        "x\u2028\u0085\u202eforged",
    ],
    ids=["newline", "return", "terminal", "delete", "unicode"],
)
def test_a_subject_cannot_forge_a_line(
    culvert: Start, certificates: Certificates, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "the.log"
    daemon = culvert(strict_service(certificates), options=f"output = {output}\n")
    present(daemon.port("strict"), certificates.ca.cert, named(tmp_path, [name]))
    daemon.await_log(r"LOG3\[0\]: SSL_accept: ")
    daemon.await_log(r"LOG4\[0\]: Rejected by CERT at depth=0: .*x")
    eventually(lambda: b"SSL_accept" in output.read_bytes(), "the failure in the file")
    content = output.read_bytes().decode()
    lines = content.removesuffix("\n").split("\n")
    identifiers = {match["id"] for line in lines if (match := LOG_LINE.match(line))}
    assert identifiers <= {"ui", "main", "cron", "0"}
    assert all(LOG_LINE.match(line) for line in lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x80-\x9f]", content)


def test_a_long_subject_is_cut(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    daemon = culvert(strict_service(certificates))
    present(daemon.port("strict"), certificates.ca.cert, named(tmp_path, ["y" * 64] * 40))
    daemon.await_log(r"LOG3\[0\]: SSL_accept: ")
    match = LOG_LINE.match(daemon.await_log("Rejected by CERT at depth=0: ").string)
    assert match
    assert TEXT_LIMIT - 4 <= len(match["text"].encode()) <= TEXT_LIMIT


def test_no_line_is_longer_in_the_file(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    output = LogFile(tmp_path / "the.log")
    services = echo_service(certificates, name="s" * 1500)
    daemon = culvert(services, options=f"output = {output.path}\n")
    output.wait("Accepting new connections")
    assert daemon.process.poll() is None
    texts = [match["text"] for line in output.lines if (match := LOG_LINE.match(line))]
    assert len(texts) == len(output.lines)
    assert max(len(text.encode()) for text in texts) == TEXT_LIMIT


def test_a_log_that_takes_nothing_harms_no_connection(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates), options="output = /dev/full\n", workers=2)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    for _ in range(5):
        echo(peer)
        say_tls(daemon.port("echo"), certificates.ca.cert)
    finish(peer)
    daemon.await_log("Connection closed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", where], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.decode().strip()}")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


@needs_root
def test_a_full_disk_harms_no_connection_and_the_log_comes_back(
    culvert: Start, certificates: Certificates, small_disk: Path
) -> None:
    log = LogFile(small_disk / "the.log")
    daemon = culvert(echo_service(certificates), options=f"output = {log.path}\n")
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    for _ in range(40):
        say_tls(daemon.port("echo"), certificates.ca.cert)
    echo(peer)
    assert os.statvfs(small_disk).f_bavail == 0
    ballast.unlink()
    mark = log.mark()
    finish(peer)
    say_tls(daemon.port("echo"), certificates.ca.cert)
    log.wait(
        r"LOG5\[\d+\]: Connection closed: 25 byte\(s\) sent to TLS, 25 byte\(s\) sent to socket", since=mark
    )


def test_the_reader_of_standard_error_may_go_away(tmp_path: Path, certificates: Certificates) -> None:
    path = tmp_path / "daemon.conf"
    with fixed_ports(1) as (port,):
        services = echo_service(certificates, port)
        path.write_text(f"foreground = yes\nsyslog = no\npid =\ndebug = 7\n{services}")
        process = subprocess.Popen(
            command("run", path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            assert any(b"Accepting new connections" in line for line in process.stderr)
            process.stderr.close()
            for _ in range(3):
                say_tls(port, certificates.ca.cert)
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0
