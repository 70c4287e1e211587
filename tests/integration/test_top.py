"""`culvert top` on a terminal, with a real daemon and real traffic."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, fixed_ports, run
from .echo import EchoServer, echo, echo_service, open_tls
from .harness import HEADER, PATIENCE, Culvert, eventually
from .peers import TlsPeer, dial
from .screen import CTRL_C, CTRL_Z, Screen


class World:
    """A daemon with an endpoint, two services, and connections to them."""

    def __init__(self, folder: Path, certificates: Certificates, ports: list[int], target: int) -> None:
        self.folder = folder
        self.ports = ports
        self.trust = certificates.ca.cert
        self.services = "".join(
            echo_service(certificates, port, name=name, sink=f"connect = 127.0.0.1:{target}")
            for name, port in zip(("mail", "web"), ports, strict=True)
        )
        self.daemon = self.make()

    def make(self) -> Culvert:
        header = f"{HEADER}admin = {self.folder / 'admin'}\ndrainTimeout = 0\n"
        return Culvert(self.folder, self.services, header=header, workers=1)

    def open(self, service: int = 0) -> TlsPeer:
        peer = open_tls(self.ports[service], self.trust)
        echo(peer)
        return peer

    def top(self, *more: str, columns: int = 120, lines: int = 30) -> Screen:
        argv = command("top", str(self.daemon.path), "--interval", "0.3", *more)
        return Screen(argv, columns=columns, lines=lines)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    with EchoServer() as target, fixed_ports(2) as ports:
        world = World(tmp_path_factory.mktemp("top"), certificates, ports, target.port)
        world.daemon.start()
        try:
            yield world
        finally:
            world.daemon.stop()


@pytest.fixture
def peer(world: World) -> Iterator[TlsPeer]:
    """A connection that lives while the test does."""
    peer = world.open()
    yield peer
    peer.close()


def test_it_shows_what_goes_on_and_is_gone_without_a_trace(world: World, peer: TlsPeer) -> None:
    with world.top() as screen:
        screen.wait(r"culvert \S+  ready  up .* 1 worker\(s\)")
        screen.wait(r"(?m)^mail +1 ")
        screen.wait(r"TLSv1\.3 TLS_AES")
        for _ in range(3):
            echo(peer)
        screen.press("q")
        assert screen.end() == 0
        assert screen.modes == screen.before
        assert screen.raw.endswith(b"\x1b[?25h\x1b[?1049l")


def test_throughput_is_live(world: World, peer: TlsPeer) -> None:
    with world.top() as screen:
        screen.wait("ready")

        def carried() -> bool:
            echo(peer)
            return re.search(r"to TLS [1-9][0-9.]* k?B/s", screen.text) is not None

        eventually(carried, "a throughput")


def test_keys_sort_and_filter(world: World, peer: TlsPeer) -> None:
    other = world.open(1)
    try:
        with world.top() as screen:
            screen.wait("ready")
            screen.press("s>")
            screen.wait(r"Open v")
            screen.press("c/")
            screen.wait("Show what contains: _")
            screen.press("web\r")
            shown = screen.wait('Connections  with "web"')
            assert "mail" not in shown
            screen.press(b"\x1b")
            screen.wait('with "web"', gone=True)
    finally:
        other.close()


def test_a_connection_is_ended_after_consent(world: World) -> None:
    peer = world.open()
    try:
        with world.top() as screen:
            screen.wait("ready")
            screen.press(b"\x1b[B")
            screen.press("k")
            screen.wait(r"End connection \S+ of 127\.0\.0\.1:\d+, service \[mail\]\?")
            screen.press("n")
            screen.wait("End connection", gone=True)
            screen.press("ky")
            screen.wait(r"1 connection\(s\) ended")
            screen.wait(r"(?m)^mail +0 ")
    finally:
        peer.close()


def test_a_window_may_change_its_size(world: World) -> None:
    with world.top() as screen:
        screen.wait("Leads to")
        screen.resize(60, 12)
        screen.wait(r"(?m)^mail +\d+ +\d+ +[0-9.]+")
        assert "Leads to" not in screen.text
        screen.resize(140, 40)
        screen.wait("Certificate")


def test_a_daemon_may_go_and_come_back(tmp_path: Path, certificates: Certificates) -> None:
    with EchoServer() as target, fixed_ports(2) as ports:
        world = World(tmp_path, certificates, ports, target.port)
        with world.daemon, world.top() as screen:
            screen.wait("  ready  ")
            world.daemon.stop()
            screen.wait("not answering")
            screen.wait("No answer: Nobody listens at ")
            with world.make() as again:
                screen.wait("  ready  ")
                screen.press("q")
                assert screen.end() == 0
                again.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_and_the_terminal_is_as_before(world: World, number: signal.Signals) -> None:
    with world.top() as screen:
        screen.wait("ready")
        if number == signal.SIGINT:
            screen.press(CTRL_C)
        else:
            screen.process.send_signal(number)
        assert screen.end() == 128 + number
        assert screen.modes == screen.before


def test_it_stops_and_goes_on_as_the_shell_says(world: World) -> None:
    with Screen(["bash", "--norc", "--noprofile", "-i"], environment={"PS1": "shell> "}) as screen:
        screen.wait("shell>")
        at_prompt = screen.modes
        screen.press(f"{' '.join(command('top', str(world.daemon.path)))}\r")
        screen.wait("ready")
        assert not screen.modes[3] & termios.ICANON
        screen.press(CTRL_Z)
        screen.wait("Stopped")
        screen.wait(r"shell>\s*$")
        eventually(lambda: screen.modes == at_prompt, "the shell's own modes")
        screen.press("fg\r")
        screen.wait("ready")
        assert not screen.modes[3] & termios.ICANON
        screen.press("q")
        screen.wait(r"shell>\s*$")
        screen.press("exit 7\r")
        assert screen.end() == 7


def test_no_name_of_a_peer_commands_the_terminal(tmp_path: Path) -> None:
    """What an endpoint tells of peers may hold anything: here it is one of our own making."""
    argv = command("top", "--admin", tmp_path / "evil", "--interval", "0.3")
    with EvilEndpoint(tmp_path / "evil"), Screen(argv) as screen:
        shown = screen.wait("evil")
        assert b"\x1b]0;" not in screen.raw
        assert "]0;owned" in shown
        screen.press("q")
        assert screen.end() == 0


class EvilEndpoint:
    """Answers as the endpoint does, of services and peers with control characters in their names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> EvilEndpoint:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _EVIL, str(self.path)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


_EVIL = r"""
import json, socket, sys
evil = "evil\x1b]0;owned\x07\x1b[2J\x9b2J\r\n"
service = {"name": evil, "client": False, "accept": evil, "exec": evil, "protocol": None, "live": True,
    "connections": {"open": 1, "total": 1}, "handshakes": {"total": 1, "failed": 0},
    "bytes": {"to_tls": 0, "to_plain": 0}, "targets": [], "certificates": [{"subject": evil, "days": 3}]}
status = {"format": 1, "version": evil, "time": 5, "since": 1, "ready": False, "obstacles": [evil],
    "draining": False, "workers": 1, "worker_restarts": 0, "services": [service],
    "reloads": {"succeeded": 0, "failed": 0, "last_failed": False},
    "failures": [{"time": 1, "count": 1, "service": evil, "peer": evil, "reason": evil}]}
one = {"worker": 1, "id": evil, "service": evil, "peer": evil, "target": evil, "state": evil, "seconds": 1,
    "to_tls": 0, "to_plain": 0, "sni": evil, "tls": {"version": evil, "cipher": evil, "group": evil}}
connections = {"format": 1, "complete": True, "total": 1, "connections": [one]}
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(8)
print("ready", flush=True)
while True:
    sock, _ = server.accept()
    with sock:
        asked = sock.recv(4096)
        body = json.dumps(status if b"/status" in asked else connections).encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
"""


def test_without_a_terminal_it_says_what_to_do(world: World) -> None:
    found = run(command("top", world.daemon.path))
    assert (found.returncode, found.stdout) == (1, "")
    assert "see 'culvert status', or --once, or --batch" in found.stderr


def test_one_view_is_printed(world: World, peer: TlsPeer) -> None:
    found = run(command("top", world.daemon.path, "--once"))
    assert (found.returncode, found.stderr) == (0, "")
    assert re.search(r"(?m)^mail +1 ", found.stdout)
    assert "\x1b" not in found.stdout


def test_view_after_view_is_printed(world: World) -> None:
    found = run(command("top", world.daemon.path, "--batch", "--interval", "0.2", "--count", "3"))
    assert (found.returncode, found.stdout.count("handshakes/s,")) == (0, 3)


def test_without_an_endpoint_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "culvert.conf"
    path.write_text(f"pid = {tmp_path / 'pid'}\n")
    found = run(command("top", path))
    assert (found.returncode, "'admin' is not set" in found.stderr) == (1, True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "admin"))
    found = run(command("top", "--admin", tmp_path / "admin", "--once"))
    assert (found.returncode, "Nobody listens" in found.stderr) == (3, True)


def test_failures_of_clients_are_shown(world: World) -> None:
    with dial(world.ports[0]) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while sock.recv(100):
            pass
    with world.top() as screen:
        screen.wait("ready")
        screen.press("f")
        screen.wait(r"Failures")
        screen.wait(r"1  mail +127\.0\.0\.1:\d+ +\S+")
