"""Socket activation: sockets that were made by who started the daemon."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import answers, fixed_ports
from .echo import echo, echo_service, finish, open_tls, say_tls
from .harness import PATIENCE, Culvert, require
from .peers import TlsPeer, client_context, read_all
from .service_manager import passing

Start = Callable[..., Culvert]

processes = pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Two ports."""
    with fixed_ports(2) as ports:
        yield ports


def services(certificates: Certificates, *ports: int) -> str:
    """Services a and b, each of which says its name to whoever connects."""
    return "".join(
        echo_service(certificates, port, name=name, sink=f"exec = /bin/echo\nexecArgs = echo {name}")
        for name, port in zip("ab", ports, strict=False)
    )


def name_at(port: int, certificates: Certificates) -> str:
    """The service that answers there."""
    peer = open_tls(port, certificates.ca.cert)
    said = read_all(peer)
    peer.end()
    peer.close()
    return said.decode().strip()


def refused(folder: Path, text: str, *sockets: str) -> str:
    """What a daemon says that does not start with these sockets."""
    daemon = Culvert(folder, text, prefix=passing(*sockets))
    daemon.launch()
    assert daemon.wait() == 1
    assert not daemon.leftovers()
    return "\n".join(daemon.log.lines)


class TestOrder:
    @processes
    def test_sockets_go_to_services_in_order(
        self, culvert: Start, certificates: Certificates, ports: list[int], workers: int
    ) -> None:
        first, second = ports
        daemon = culvert(
            services(certificates, first, second),
            prefix=passing(f"=listen={second}", f"=listen={first}"),
            workers=workers,
        )
        assert name_at(second, certificates) == "a"
        assert name_at(first, certificates) == "b"
        assert daemon.log.find(rf"LOG4\[main\]: Service \[a\] accepts at 127\.0\.0\.1:{second}, socket 1 ")
        daemon.stop()

    def test_a_name_goes_before_the_order(
        self, culvert: Start, certificates: Certificates, ports: list[int]
    ) -> None:
        first, second = ports
        daemon = culvert(
            services(certificates, first, second),
            prefix=passing(f"b=listen={second}", f"x.socket=listen={first}"),
        )
        assert name_at(first, certificates) == "a"
        assert name_at(second, certificates) == "b"
        assert not daemon.log.find("LOG4")
        daemon.stop()

    def test_a_service_without_one_binds_its_own(
        self, culvert: Start, certificates: Certificates, ports: list[int]
    ) -> None:
        first, second = ports
        daemon = culvert(services(certificates, first, second), prefix=passing(f"=listen={first}"))
        assert name_at(first, certificates) == "a"
        assert name_at(second, certificates) == "b"
        daemon.stop()

    def test_a_unix_socket_is_left_to_its_owner(
        self, culvert: Start, certificates: Certificates, tmp_path: Path
    ) -> None:
        path = tmp_path / "socket"
        leaf = certificates.server
        text = f"[a]\naccept = {path}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n"
        daemon = culvert(text, prefix=passing(f"a=listen={path}"))
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        peer = TlsPeer(sock, client_context(trust=certificates.ca.cert), server=False)
        peer.handshake()
        echo(peer)
        finish(peer)
        daemon.stop()
        assert path.is_socket()


class TestRefused:
    def test_one_too_many(self, tmp_path: Path, certificates: Certificates, ports: list[int]) -> None:
        said = refused(tmp_path, services(certificates, 0), f"=listen={ports[0]}", f"spare=listen={ports[1]}")
        assert 'There is no service for socket 2 of the service manager (descriptor 4, named "spare")' in said

    @pytest.mark.parametrize(("kind", "fault"), [("silent", "does not listen"), ("datagram", "no stream")])
    def test_what_cannot_be_accepted_on(
        self, tmp_path: Path, certificates: Certificates, ports: list[int], kind: str, fault: str
    ) -> None:
        said = refused(tmp_path, services(certificates, *ports), f"=listen={ports[0]}", f"={kind}={ports[1]}")
        assert "[!] Socket 2 of the service manager (descriptor 4)" in said
        assert fault in said

    def test_another_family(self, tmp_path: Path, certificates: Certificates) -> None:
        said = refused(tmp_path, services(certificates, 0), f"=listen={tmp_path}/socket")
        assert "Service [a] accepts at 127.0.0.1:0, and gets socket 1" in said
        assert "which is for Unix" in said


class TestReload:
    @processes
    def test_the_sockets_are_kept(
        self, culvert: Start, certificates: Certificates, ports: list[int], workers: int
    ) -> None:
        text = services(certificates, *ports)
        daemon = culvert(text, prefix=passing(*(f"=listen={port}" for port in ports)), workers=workers)
        before = daemon.descriptors()
        for _ in range(2):
            mark = daemon.reload(text)
            daemon.await_log("Accepting new connections", since=mark)
            assert [name_at(port, certificates) for port in ports] == ["a", "b"]
        daemon.await_descriptors(before)
        daemon.stop()

    def test_one_that_has_no_use_any_more_refuses_the_reload(
        self, culvert: Start, certificates: Certificates, ports: list[int]
    ) -> None:
        daemon = culvert(
            services(certificates, *ports), prefix=passing(*(f"=listen={port}" for port in ports))
        )
        mark = daemon.reload(services(certificates, ports[0]))
        daemon.await_log("There is no service for socket 2", since=mark)
        daemon.await_log("Configuration failed", since=mark)
        assert name_at(ports[1], certificates) == "b"
        daemon.stop()


class TestSystemd:
    """systemd's own launcher in place of ours."""

    def test_the_first_client_starts_it(
        self, tmp_path: Path, certificates: Certificates, ports: list[int]
    ) -> None:
        launcher = require("systemd-socket-activate")
        daemon = Culvert(
            tmp_path,
            echo_service(certificates, ports[0]),
            prefix=[launcher, "-l", f"127.0.0.1:{ports[0]}", "--fdname=echo", "-E", "TMPDIR"],
            environment={"PATH": "/usr/bin:/bin"},
        )
        daemon.launch()
        try:
            daemon.await_log("Listening on")
            say_tls(ports[0], certificates.ca.cert)
            daemon.await_log("Accepting new connections")
            say_tls(ports[0], certificates.ca.cert)
        finally:
            daemon.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert not answers(ports[0])


def test_programs_see_nothing_of_it(culvert: Start, certificates: Certificates, ports: list[int]) -> None:
    daemon = culvert(
        echo_service(certificates, ports[0], sink="exec = /usr/bin/env"),
        prefix=passing(f"echo=listen={ports[0]}"),
    )
    peer = open_tls(ports[0], certificates.ca.cert)
    said = read_all(peer)
    peer.end()
    peer.close()
    assert b"PATH=" in said
    assert b"LISTEN_" not in said
    daemon.stop()
