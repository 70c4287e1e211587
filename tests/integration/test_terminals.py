"""`exec` with `pty = yes`, and programs that a client service runs again and again (`retry`)."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import Culvert, eventually
from .peers import (
    Listener,
    Peers,
    TlsPeer,
    TruncatedError,
    client_context,
    read_all,
    read_exactly,
    server_context,
)

Start = Callable[..., Culvert]

TERMINAL = """\
import os, sys
print("terminal", all(os.isatty(number) for number in range(3)))
print("session", os.getsid(0) == os.getpid())
print("foreground", os.tcgetpgrp(0) == os.getpgrp())
with open("/dev/tty", "w") as terminal:
    print("controlling", file=terminal)
"""

RAW = """\
import os, sys, time, tty
time.sleep(0.4)
tty.setraw(0)
if sys.argv[1] == "speaks":
    os.write(1, b"set up ")
while heard := os.read(0, 100):
    os.write(1, heard.upper())
"""
"""As pppd does: what comes before the terminal is set up would be echoed, and dropped."""

INTERRUPTED = """\
trap 'echo interrupted; exit 0' INT
echo ready
while :; do sleep 0.05; done
"""


@pytest.fixture
def terminal(
    culvert: Start, certificates: Certificates, peers: Peers, tmp_path: Path
) -> Callable[..., TlsPeer]:
    """Connects to a program that runs on a pseudoterminal."""

    def run(program: str, arguments: str) -> TlsPeer:
        daemon = culvert(
            f"[t]\naccept = 127.0.0.1:0\nexec = {program}\nexecArgs = {arguments}\npty = yes\n"
            f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
        )
        return peers.tls(daemon.port("t"), client_context())

    return run


def test_a_pty_is_the_controlling_terminal_of_a_session(
    terminal: Callable[..., TlsPeer], tmp_path: Path
) -> None:
    (tmp_path / "terminal.py").write_text(TERMINAL)
    output = read_all(terminal(sys.executable, f"python {tmp_path}/terminal.py")).replace(b"\r\n", b"\n")
    assert sorted(output.split(b"\n")[:-1]) == [
        b"controlling",
        b"foreground True",
        b"session True",
        b"terminal True",
    ]


def test_control_c_interrupts_the_program(terminal: Callable[..., TlsPeer], tmp_path: Path) -> None:
    (tmp_path / "interrupted.sh").write_text(INTERRUPTED)
    peer = terminal("/bin/sh", f"sh {tmp_path}/interrupted.sh")
    assert read_exactly(peer, 7) == b"ready\r\n"
    peer.send(b"\x03")
    assert b"interrupted" in read_all(peer)


def test_the_program_on_a_terminal_is_hung_up_when_the_client_leaves(
    culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    daemon = culvert(
        "[t]\naccept = 127.0.0.1:0\nexec = /bin/sleep\nexecArgs = sleep 1000\npty = yes\nTIMEOUTclose = 1\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )
    before = len(daemon.tree())
    peer = peers.tls(daemon.port("t"), client_context())
    eventually(lambda: len(daemon.tree()) == before + 1, "the program")
    peer.close()
    eventually(lambda: len(daemon.tree()) == before, "the end of the program")


@pytest.mark.parametrize("manner", ["speaks", "silent"])
def test_a_program_sets_up_its_terminal_before_it_is_spoken_to(
    terminal: Callable[..., TlsPeer], tmp_path: Path, manner: str
) -> None:
    (tmp_path / "raw.py").write_text(RAW)
    peer = terminal(sys.executable, f"python {tmp_path}/raw.py {manner}")
    peer.send(b"hello")
    expected = b"set up HELLO" if manner == "speaks" else b"HELLO"
    assert read_exactly(peer, len(expected)) == expected


def test_a_program_that_waits_silently_is_spoken_to(terminal: Callable[..., TlsPeer]) -> None:
    peer = terminal("/bin/cat", "cat")
    peer.send(b"hello\n")
    assert read_exactly(peer, 14) == b"hello\r\nhello\r\n"


def test_a_program_with_a_raw_terminal_is_hung_up_though_it_never_falls_silent(
    culvert: Start, certificates: Certificates, peers: Peers, tmp_path: Path
) -> None:
    (tmp_path / "endless.sh").write_text("stty raw\nwhile echo more; do sleep 0.1; done\n")
    daemon = culvert(
        f"[t]\naccept = 127.0.0.1:0\nexec = /bin/sh\npty = yes\nexecArgs = sh {tmp_path}/endless.sh\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )
    before = len(daemon.tree())
    peer = peers.tls(daemon.port("t"), client_context())
    assert read_exactly(peer, 4) == b"more"
    peer.end()
    with pytest.raises(TruncatedError):
        read_all(peer)
    eventually(lambda: len(daemon.tree()) == before, "the end of the program")
    daemon.await_log("raw: a hang-up alone tells it the end of its input: closing")


class Retried:
    """A client service without accept: its program talks to a TLS server that the test plays."""

    def __init__(self, culvert: Start, peers: Peers, certificates: Certificates, retry: str) -> None:
        self.listener: Listener = peers.listen()
        self._context = server_context(certificates.server)
        self.daemon = culvert(
            f"[again]\nclient = yes\nexec = /bin/echo\nexecArgs = echo hello\n"
            f"connect = 127.0.0.1:{self.listener.port}\nretry = {retry}\nTIMEOUTclose = 1\n"
        )

    def visit(self) -> bytes:
        """Accepts the next connection and reads what the program says."""
        with self.listener.accept() as sock:
            peer = TlsPeer(sock, self._context, server=True)
            peer.handshake()
            said = read_all(peer)
            peer.end()
            sock.shutdown(socket.SHUT_WR)
            return said


@pytest.fixture
def retried(culvert: Start, peers: Peers, certificates: Certificates) -> Callable[[str], Retried]:
    """Starts a client service whose program has this value of `retry`."""
    return lambda retry: Retried(culvert, peers, certificates, retry)


def test_retry_runs_the_program_again(retried: Callable[[str], Retried]) -> None:
    service = retried("300")
    service.daemon.await_log(r"LOG6\[\S+\]: Starting exec\+connect service \[again\]")
    started = time.monotonic()
    assert [service.visit() for _ in range(3)] == [b"hello\n"] * 3
    assert 0.5 < time.monotonic() - started < 5


def test_without_retry_the_program_runs_once(
    culvert: Start, peers: Peers, certificates: Certificates
) -> None:
    service = Retried(culvert, peers, certificates, "no")
    assert service.visit() == b"hello\n"
    service.daemon.await_log("Connection closed: 6 byte")
    with pytest.raises(TimeoutError):
        service.listener.accept(timeout=1.5)


def test_retry_outlives_a_target_that_is_down(
    culvert: Start, peers: Peers, certificates: Certificates
) -> None:
    service = Retried(culvert, peers, certificates, "200")
    assert service.visit() == b"hello\n"
    port = service.listener.port
    service.listener.close()
    service.daemon.await_log("LOG3.*Connection refused")
    service.listener = peers.listen(port=port)
    assert service.visit() == b"hello\n"
