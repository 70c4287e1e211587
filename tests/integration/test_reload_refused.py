"""SIGHUP with a configuration that cannot be used: the running one goes on, and the log says why."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import answers, children, fixed_ports
from .echo import echo, finish, open_tls, say_tls
from .harness import Culvert


@dataclass
class Running:
    """A daemon with a living connection; `spare` is a port that it does not use."""

    daemon: Culvert
    certificates: Certificates
    port: int
    spare: int
    cert: Path
    key: Path
    pid_file: Path
    workers: list[int] = field(default_factory=list)

    def service(self, name: str, port: int, options: str = "") -> str:
        """A service that gives back what it gets, with the files that the test may spoil."""
        return (
            f"[{name}]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\n"
            f"cert = {self.cert}\nkey = {self.key}\n{options}"
        )

    def refuse(self, services: str, *reasons: str) -> None:
        """Loads `services`, waits for these reasons in the log, and asserts that nothing else has changed."""
        trust = self.certificates.ca.cert
        peer = open_tls(self.port, trust)
        echo(peer)
        before = self.daemon.descriptors()
        mark = self.daemon.log.mark()
        self.daemon.configure(services)
        self.daemon.send_signal(signal.SIGHUP)
        for reason in reasons:
            self.daemon.await_log(rf"LOG[34]\[\w+\]: .*{reason}", since=mark)
        echo(peer)
        say_tls(self.port, trust)
        assert not answers(self.spare)
        assert children(self.daemon.pid) == self.workers
        assert self.pid_file.read_text() == f"{self.daemon.pid}\n"
        assert not self.daemon.log.find("Accepting new connections|Configuration successful", since=mark)
        assert not self.daemon.log.find("Traceback", since=mark)
        finish(peer)
        self.daemon.await_descriptors(before)


@pytest.fixture
def running(tmp_path: Path, certificates: Certificates) -> Iterator[Running]:
    """A daemon that serves, and that loads a good configuration when the test is over."""
    cert, key = tmp_path / "live.crt", tmp_path / "live.key"
    shutil.copy(certificates.server.cert, cert)
    shutil.copy(certificates.server.key, key)
    pid_file = tmp_path / "daemon.pid"
    header = f"foreground = yes\nsyslog = no\ndebug = 7\npid = {pid_file}\n"
    with fixed_ports(2) as (port, spare):
        daemon = Culvert(tmp_path, "", header=header, workers=2)
        running = Running(daemon, certificates, port, spare, cert, key, pid_file)
        good = running.service("echo", port)
        daemon.configure(good)
        with daemon:
            running.workers = children(daemon.pid)
            yield running
            shutil.copy(certificates.server.cert, cert)
            shutil.copy(certificates.server.key, key)
            mark = daemon.reload(good + running.service("spare", spare))
            daemon.await_log("Accepting new connections", since=mark)
            say_tls(port, certificates.ca.cert)
            say_tls(spare, certificates.ca.cert)
            assert pid_file.read_text() == f"{daemon.pid}\n"


def test_a_misspelt_option(running: Running) -> None:
    services = running.service("echo", running.port) + running.service("new", running.spare, "conect = 80\n")
    running.refuse(services, r'culvert\.conf:\d+: "conect = 80": .*connect', "Configuration failed")


def test_every_error_is_told(running: Running) -> None:
    services = running.service("echo", running.port, "verify = 9\ndelay = perhaps\n")
    running.refuse(services, r'\d+: "verify = 9": ', r'\d+: "delay = perhaps": ', "Configuration failed")


def test_bytes_that_are_no_text(running: Running) -> None:
    running.daemon.path.write_bytes(b"\xff\xfe\x00\x01" * 100)
    mark = running.daemon.log.mark()
    running.daemon.send_signal(signal.SIGHUP)
    running.daemon.await_log(r"LOG3\[\w+\]: Configuration failed", since=mark)
    say_tls(running.port, running.certificates.ca.cert)
    assert not running.daemon.log.find("Traceback", since=mark)


def test_a_file_that_is_gone(running: Running) -> None:
    running.daemon.path.unlink()
    mark = running.daemon.log.mark()
    running.daemon.send_signal(signal.SIGHUP)
    running.daemon.await_log(r"LOG3\[\w+\]: .*culvert\.conf.*No such file or directory", since=mark)
    running.daemon.await_log(r"LOG3\[\w+\]: Configuration failed", since=mark)
    say_tls(running.port, running.certificates.ca.cert)
    assert children(running.daemon.pid) == running.workers


def test_a_busy_port(running: Running) -> None:
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", 0))
        rival.listen()
        busy = rival.getsockname()[1]
        services = (
            running.service("echo", running.port)
            + running.service("fine", running.spare)
            + running.service("busy", busy)
        )
        running.refuse(
            services,
            r"Binding service \[busy\] failed",
            rf"127\.0\.0\.1:{busy}\b.*Address already in use",
        )


def test_a_key_that_is_gone(running: Running) -> None:
    running.key.unlink()
    services = running.service("echo", running.port) + running.service("new", running.spare)
    running.refuse(services, r"live\.key.*No such file or directory", "Configuration failed")


def test_a_key_that_is_none(running: Running) -> None:
    running.key.write_text("this is no key\n")
    services = running.service("echo", running.port) + running.service("new", running.spare)
    running.refuse(services, r"live\.key", "Configuration failed")


def test_a_key_of_another_certificate(running: Running) -> None:
    shutil.copy(running.certificates.client.key, running.key)
    services = running.service("echo", running.port) + running.service("new", running.spare)
    running.refuse(services, r"private key in .*live\.key.*live\.crt", "Configuration failed")


def test_a_certificate_that_is_none(running: Running) -> None:
    running.cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    services = running.service("echo", running.port) + running.service("new", running.spare)
    running.refuse(services, r"live\.crt", "Configuration failed")


def test_a_trust_file_that_is_gone(running: Running) -> None:
    options = "CAfile = /nonexistent/ca.pem\nverify = 2\n"
    services = running.service("echo", running.port) + running.service("new", running.spare, options)
    running.refuse(services, r"/nonexistent/ca\.pem", "Configuration failed")


def test_one_after_the_other(running: Running) -> None:
    for number in range(5):
        running.refuse(running.service("echo", running.port, f"verify = 1{number}\n"), rf"verify = 1{number}")
