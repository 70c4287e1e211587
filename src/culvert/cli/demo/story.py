"""The demo itself: the classic set-up, run for real, with every hop shown and judged.

A plain client says a line to three services of a client tunnel and gets it back: from an echo program
behind a Culvert server, by address and by name, and from a TLS server that is not Culvert. Then the same
with a CA that did not sign the servers' certificates, where every one must be refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from culvert.cli.console import open_console
from culvert.cli.demo.authority import Authority
from culvert.cli.demo.configurations import (
    BY_ADDRESS,
    BY_NAME,
    FOREIGN,
    Confinement,
    client_configuration,
    server_configuration,
)
from culvert.cli.demo.jail import JailError, build_jail, unprivileged_identity
from culvert.cli.demo.narration import Narrator
from culvert.cli.demo.processes import DemoError, Tunnel, foreign_server
from culvert.cli.demo.tap import Crossing, Tap, last_application_record

_SERVICES = (BY_ADDRESS, BY_NAME, FOREIGN)
_ANSWER_LIMIT = 20.0
_NEGOTIATED = r"LOG\d\[\w+\]: (?P<what>TLSv1\.\d ciphersuite: .*)$"
_REJECTED = r"LOG4\[\w+\]: Rejected by CERT at depth="
_REFUSED = r"LOG3\[\w+\]: .*certificate verify failed"
_HANDSHAKE_RECORD = b"\x16"


def run_demo() -> int:
    """Run the demo; returns 0 only if every step came out as it must.

    All it makes is temporary and all it starts is ended, also when SIGTERM or SIGHUP ends it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    # The jail's folders must be open to the user who runs in it, whatever the caller's umask is.
    os.umask(0o022)
    narrator = Narrator(open_console())
    try:
        with tempfile.TemporaryDirectory(prefix="culvert-demo-") as folder, contextlib.ExitStack() as stack:
            _Demo(Path(folder), narrator, stack).run()
    except DemoError as error:
        narrator.fail(str(error))
    narrator.conclude(
        f"all right. {len(_SERVICES)} lines went through TLS and came back; "
        f"{len(_SERVICES)} servers that the CA did not sign for were refused."
    )
    return 1 if narrator.failures else 0


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the server's end runs, and where."""

    program: str
    confinement: Confinement | None
    pid_file: Path
    why_unconfined: str = ""


class _Demo:
    """One run, inside one temporary folder; `stack` ends what is started."""

    def __init__(self, folder: Path, narrator: Narrator, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._narrator = narrator
        self._stack = stack
        self._tunnels: list[Tunnel] = []

    def run(self) -> None:
        """Tell the whole story. Raises DemoError where it cannot go on, with what the logs said last."""
        try:
            self._tell()
        except (DemoError, OSError) as error:
            logs = (tunnel.last_lines() for tunnel in self._tunnels)
            raise DemoError("\n".join([str(error), *logs])) from error

    def _tell(self) -> None:
        self._narrator.step("Culvert demo: a TLS tunnel, both ends, on this machine")
        self._narrator.say(f"Everything is made in {self._folder} and removed at the end.")
        certificate = self._make_certificates()
        setting = self._prepare_program()
        echo_port = self._start_server(certificate, setting)
        foreign_port = self._stack.enter_context(foreign_server(certificate))
        taps = (self._stack.enter_context(Tap(echo_port)), self._stack.enter_context(Tap(foreign_port)))
        self._narrator.say(f"A TLS echo server that is not Culvert (Python's ssl) is on port {foreign_port}.")
        self._carry_lines(*taps)
        self._refuse_strangers(*taps)
        self._stop(setting.pid_file)

    def _make_certificates(self) -> Path:
        signer = Authority("Culvert demo CA")
        signer.write_certificate(self._folder / "ca.pem")
        Authority("A CA that did not sign").write_certificate(self._folder / "stranger.pem")
        certificate = self._folder / "server.pem"
        signer.issue(certificate, "Culvert demo server", ["localhost", "127.0.0.1"])
        self._narrator.say(f"A throw-away CA, {signer.name!r}, signed a certificate for both servers.")
        return certificate

    def _prepare_program(self) -> _Setting:
        """An echo program: in a jail where this user may have one, else where the system keeps it."""
        cat = shutil.which("cat")
        if cat is None:
            raise DemoError("no `cat` on the PATH: the demo uses it as its echo program")
        jail = self._folder / "jail"
        jail.mkdir()
        try:
            identity = unprivileged_identity()
            program = build_jail(jail, Path(cat), identity)
        except JailError as error:
            return _Setting(cat, None, self._folder / "culvert.pid", str(error))
        confinement = Confinement(jail, identity.user.pw_name, identity.group.gr_name)
        return _Setting(program, confinement, jail / "run" / "culvert.pid")

    def _start_server(self, certificate: Path, setting: _Setting) -> int:
        self._narrator.step("1. The server's end: culvert run server.conf")
        text = server_configuration(certificate, setting.program, setting.confinement)
        self._narrator.show_file(text)
        server = self._start("server.conf", text)
        port = server.port("echo")
        server.await_ready()
        if setting.confinement is not None:
            user = setting.confinement.user
            self._narrator.say(f"Service [echo] is on port {port}, in a jail that holds `cat`, as {user}.")
        else:
            self._narrator.say(f"Service [echo] is on port {port}; without chroot and setuid here:")
            self._narrator.say(f"{setting.why_unconfined}.")
        return port

    def _start(self, name: str, text: str) -> Tunnel:
        path = self._folder / name
        path.write_text(text)
        tunnel = self._stack.enter_context(Tunnel(path))
        self._tunnels.append(tunnel)
        return tunnel

    def _carry_lines(self, echo: Tap, foreign: Tap) -> None:
        self._narrator.step("2. The client's end: culvert run client.conf")
        text = client_configuration(self._folder / "ca.pem", echo.port, foreign.port)
        self._narrator.show_file(text)
        client = self._start("client.conf", text)
        client.await_ready()
        for service in _SERVICES:
            self._carry_line(client, service, foreign if service == FOREIGN else echo)

    def _carry_line(self, client: Tunnel, service: str, tap: Tap) -> None:
        port = client.port(service)
        line = f"Hello through {service}!\n".encode()
        self._narrator.step(f"[{service}]")
        self._narrator.fact("path", _describe_path(service, port, tap.port))
        mark = client.mark()
        with _connect(port) as plain:
            plain.sendall(line)
            answer = _receive_line(plain)
            crossing = tap.latest().snapshot()
            plain.shutdown(socket.SHUT_WR)
            rest = _receive_line(plain)
        self._narrator.fact("negotiated", client.await_line(_NEGOTIATED, "what was negotiated", mark)["what"])
        self._show_crossing(crossing, line.strip())
        right = answer == line and rest == b""
        self._narrator.judge(right, "answer", repr((answer + rest).decode("utf-8", "replace")))

    def _show_crossing(self, crossing: Crossing, secret: bytes) -> None:
        sent, received = crossing.to_server, crossing.to_client
        record = last_application_record(sent)
        self._narrator.wire("wire ->", sent, f"the first of {len(sent)} bytes")
        self._narrator.wire("wire <-", received, f"the first of {len(received)} bytes")
        self._narrator.wire("wire ->", record, "the record that carries the line")
        hidden = secret not in sent and secret not in received
        encrypted = hidden and record != b"" and sent[:1] == received[:1] == _HANDSHAKE_RECORD
        self._narrator.judge(encrypted, "encrypted", "yes" if encrypted else "NO")

    def _refuse_strangers(self, echo: Tap, foreign: Tap) -> None:
        self._narrator.step("3. The same with a CA that did not sign: culvert run stranger.conf")
        text = client_configuration(self._folder / "stranger.pem", echo.port, foreign.port)
        self._narrator.say(f"stranger.conf is client.conf with CAfile = {self._folder / 'stranger.pem'}")
        client = self._start("stranger.conf", text)
        client.await_ready()
        for service in _SERVICES:
            mark = client.mark()
            self._narrator.step(f"[{service}]")
            answer = _ask_refused(client.port(service))
            for pattern in (_REJECTED, _REFUSED):
                line = client.await_line(pattern, "why the server was refused", mark).string
                self._narrator.fact("log", line)
            refused = answer == b""
            self._narrator.judge(refused, "refused", "yes" if refused else f"NO, it answered {answer!r}")

    def _stop(self, pid_file: Path) -> None:
        self._narrator.step("4. The end")
        written = pid_file.exists()
        for tunnel in self._tunnels:
            status = tunnel.stop()
            self._narrator.judge(status == 0, tunnel.name, f"ended by SIGTERM with exit status {status}")
        tidy = written and not pid_file.exists()
        self._narrator.judge(tidy, "pid file", "written, and removed" if tidy else "NOT written and removed")


def _describe_path(service: str, port: int, wire: int) -> str:
    end = "TLS echo server of Python" if service == FOREIGN else "culvert server -> cat"
    host = "localhost" if service == BY_NAME else "127.0.0.1"
    return f"plain client -> 127.0.0.1:{port} culvert client -> {host}:{wire} TLS -> {end}"


def _receive_line(plain: socket.socket) -> bytes:
    """Bytes up to a line's end or the stream's."""
    received = b""
    while not received.endswith(b"\n") and (data := plain.recv(4096)):
        received += data
    return received


def _ask_refused(port: int) -> bytes:
    """What a plain client gets whose tunnel must refuse the server: the end of its connection, alone."""
    try:
        with _connect(port) as plain:
            plain.sendall(b"This must not arrive.\n")
            return _receive_line(plain)
    except ConnectionError:
        return b""


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _ANSWER_LIMIT)
