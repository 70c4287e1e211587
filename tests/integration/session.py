"""One scripted session, played to Debian's stunnel4 and to `culvert stunnel`, and what it leaves behind."""

from __future__ import annotations

import contextlib
import re
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from OpenSSL import SSL

from .certificates import Certificates, Leaf
from .daemon import Detached
from .echo import EchoServer, await_end, echo, open_plain, open_tls, refused_tls, say_tls
from .harness import eventually
from .peers import (
    Listener,
    TlsPeer,
    TruncatedError,
    background,
    client_context,
    dial,
    read_all,
    server_context,
)

SERVICES = ("exec", "connect", "strict", "down", "client", "mistrusting")

TABLE = re.compile(
    r"Reading configuration from file .*|Configuration successful|Configuration failed"
    r"|Service \[\w+\] \(FD=N\) bound to \S+|Accepting new connections"
    r"|Service \[\w+\] accepted connection from \S+|Service \[\w+\] connected remote server from \S+"
    r"|TLS (accepted|connected): (new session negotiated|previous session reused)"
    r"|Service \[\w+\] needs authentication to prevent MITM attacks"
    r"|Rejected by CERT at depth=\d+: .*|SSL_(accept|connect): .*"
    r"|Connection (closed|reset): \d+ byte\(s\) sent to TLS, \d+ byte\(s\) sent to socket"
)
"""The lines of a log that scripts and monitors parse, with what differs from run to run taken out."""


@dataclass
class Result:
    """What a session left behind."""

    lines: list[tuple[int, str]] = field(default_factory=list)
    identifiers: list[str] = field(default_factory=list)
    launched: int = -1
    stdout: str = ""
    pid_text: str = ""
    pid: int = 0
    pid_mode: int = 0
    log_mode: int = 0
    pid_left: bool = True
    reopened: bool = False
    kept_after_reload: bool = False


class Session:
    """The script. `ports` are for SERVICES, in that order, then one that nobody listens on."""

    def __init__(
        self, folder: Path, argv: list[str], certificates: Certificates, ports: list[int], target: int
    ) -> None:
        self._folder = folder
        self._certificates = certificates
        self._ports = dict(zip((*SERVICES, "nobody"), ports, strict=True))
        self._server = Listener()
        self._text = self._configuration(certificates.server, target)
        self._daemon = Detached(folder, self._text, argv=argv)

    def _configuration(self, leaf: Leaf, target: int) -> str:
        ports, trust, other = self._ports, self._certificates.ca.cert, self._certificates.other_ca.cert
        sinks = {
            "exec": "exec = /bin/cat",
            "connect": f"connect = 127.0.0.1:{target}",
            "strict": f"connect = 127.0.0.1:{target}\nverify = 2\nCAfile = {trust}\nsslVersion = TLSv1.2",
            "down": f"connect = 127.0.0.1:{ports['nobody']}",
            "client": f"client = yes\nconnect = 127.0.0.1:{self._server.port}",
            "mistrusting": (
                f"client = yes\nconnect = 127.0.0.1:{self._server.port}\nverify = 2\nCAfile = {other}"
                "\nsslVersion = TLSv1.2"
            ),
        }
        return (
            f"; a drop-in's configuration\npid = {self._folder}/daemon.pid\n"
            f"output = {self._folder}/daemon.log\nsyslog = no\ndebug = 6\n"
            f"cert = {leaf.cert}\nkey = {leaf.key}\n"
            + "".join(f"[{name}]\naccept = 127.0.0.1:{ports[name]}\n{sink}\n" for name, sink in sinks.items())
        )

    def play(self) -> Result:
        """The whole script, once."""
        result = Result()
        launched = self._daemon.launch()
        result.launched, result.stdout = launched.returncode, launched.stdout + launched.stderr
        try:
            self._daemon.find_pid()
            self._daemon.log.wait("Accepting new connections")
            self._inspect(result)
            self._connections()
            self._reloads(result)
            self._rotation(result)
            self._daemon.stop()
            result.pid_left = self._daemon.pid_file.exists()
        finally:
            self._daemon.kill()
            self._server.close()
        rotated = self._folder / "daemon.log.1"
        self._collect(result, rotated.read_text() + self._daemon.log.path.read_text())
        return result

    def _inspect(self, result: Result) -> None:
        result.pid = self._daemon.pid
        result.pid_text = self._daemon.pid_file.read_text()
        result.pid_mode = stat.S_IMODE(self._daemon.pid_file.stat().st_mode)
        result.log_mode = stat.S_IMODE(self._daemon.log.path.stat().st_mode)

    def _step(self, act: Callable[[], None]) -> None:
        """One connection: acts, and waits until the log says that it is over."""
        ended = r"Connection [a-z/]+: \d+ byte"
        before = len(self._daemon.log.find(ended))
        act()
        eventually(lambda: len(self._daemon.log.find(ended)) > before, "the connection's last line")

    def _connections(self) -> None:
        ports, trust = self._ports, self._certificates.ca.cert
        self._step(lambda: say_tls(ports["exec"], trust))
        self._step(lambda: say_tls(ports["connect"], trust))
        self._step(lambda: refused_tls(ports["strict"], client_context("TLSv1.2", trust=trust)))
        stranger = client_context("TLSv1.2", trust=trust, leaf=self._certificates.stranger)
        self._step(lambda: refused_tls(ports["strict"], stranger))
        known = client_context("TLSv1.2", trust=trust, leaf=self._certificates.client)
        self._step(lambda: served_tls(ports["strict"], known))
        self._step(lambda: refused_tls(ports["down"], client_context(trust=trust)))
        self._step(lambda: refused_plain(ports["exec"], b"this is no TLS\n"))
        self._step(self._client)
        self._step(self._mistrusting)

    def _client(self) -> None:
        peer = open_plain(self._ports["client"])
        server = TlsPeer(self._server.accept(), server_context(self._certificates.server), server=True)
        server.handshake()
        peer.send(b"question")
        assert server.recv() == b"question"
        server.send(b"the answer")
        server.end()
        assert read_all(peer) == b"the answer"
        peer.close()
        with contextlib.suppress(TruncatedError):
            assert read_all(server) == b""
        server.close()

    def _mistrusting(self) -> None:
        peer = open_plain(self._ports["mistrusting"])
        server = TlsPeer(self._server.accept(), server_context(self._certificates.server), server=True)
        shaking = background(server.handshake)
        await_end(peer)
        with contextlib.suppress(SSL.Error, TruncatedError, ConnectionError):
            shaking.result()
        server.close()

    def _reloads(self, result: Result) -> None:
        trust = self._certificates.ca.cert
        mark = self._daemon.log.mark()
        self._daemon.send_signal(signal.SIGHUP)
        bound = rf"\[{SERVICES[-1]}\] \(FD=\d+\) bound to"
        self._daemon.log.wait(bound, since=mark)
        self._step(lambda: say_tls(self._ports["exec"], trust))
        peer = open_tls(self._ports["exec"], trust)
        echo(peer)
        self._daemon.configure(self._text.replace("[exec]\n", "[exec]\nverify = 9\n"))
        self._daemon.send_signal(signal.SIGHUP)
        self._daemon.log.wait("Configuration failed")
        self._daemon.configure(self._text)
        echo(peer)

        def finish() -> None:
            peer.end()
            assert read_all(peer) == b""
            peer.close()

        self._step(finish)
        result.kept_after_reload = True

    def _rotation(self, result: Result) -> None:
        log = self._daemon.log.path
        log.rename(log.with_name("daemon.log.1"))
        self._daemon.send_signal(signal.SIGUSR1)
        eventually(log.exists, "the new log")
        self._step(lambda: say_tls(self._ports["connect"], self._certificates.ca.cert))
        result.reopened = True

    def _collect(self, result: Result, log: str) -> None:
        for line in log.splitlines():
            match = re.fullmatch(r"\d{4}\.\d\d\.\d\d \d\d:\d\d:\d\d LOG(\d)\[(\w+)\]: (.*)", line)
            assert match, f"not a line of the log: {line!r}"
            text = self._normal(match[3])
            if TABLE.fullmatch(text):
                result.lines.append((int(match[1]), text))
            if "accepted connection" in text:
                result.identifiers.append(match[2])

    def _normal(self, text: str) -> str:
        """A line's text without what differs from run to run, or between versions of stunnel."""
        text = text.replace(str(self._folder), "FOLDER")
        for name, port in self._ports.items():
            text = text.replace(f":{port}", f":<{name}>")
        text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:N", text)
        text = re.sub(r"FD=\d+", "FD=N", text)
        text = re.sub(r"\S+\.c:\d+: (?=error:)", "", text)  # where in OpenSSL's source
        return re.sub(r"Connection (closed/reset|reset/closed):", "Connection reset:", text)


def served_tls(port: int, context: SSL.Context) -> None:
    """A TLS client that has a line given back."""
    peer = TlsPeer(dial(port), context, server=False)
    peer.handshake()
    echo(peer)
    peer.end()
    assert read_all(peer) == b""
    peer.close()


def refused_plain(port: int, garbage: bytes) -> None:
    """A client that speaks no TLS."""
    peer = open_plain(port)
    peer.send(garbage)
    with contextlib.suppress(ConnectionError):
        while peer.recv():
            pass
    peer.close()


def play(folder: Path, argv: list[str], certificates: Certificates, ports: list[int]) -> Result:
    """Plays the session to the program that `argv` starts."""
    with EchoServer() as target:
        return Session(folder, argv, certificates, ports, target.port).play()
