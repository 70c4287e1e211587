"""The lines that scripts and monitors parse: one session with a bit of everything, a test for each line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .daemon import LOG_LINE, fixed_ports
from .echo import EchoServer, knock, open_tls, refused_tls, say_plain, say_tls
from .harness import Culvert, LogLines, eventually
from .peers import (
    Listener,
    TlsPeer,
    client_context,
    dial,
    read_all,
    read_exactly,
    reset,
)


def configuration(certificates: Certificates, echo: int, dead: int, lopsided: int, server: int) -> str:
    """A service for each kind of line; `server` is the port of [server]."""
    leaf, ca, other = certificates.server, certificates.ca.cert, certificates.other_ca.cert
    return f"""\
cert = {leaf.cert}
key = {leaf.key}
[server]
accept = 127.0.0.1:{server}
connect = 127.0.0.1:{echo}
[lopsided]
accept = 127.0.0.1:0
connect = 127.0.0.1:{lopsided}
[strict]
accept = 127.0.0.1:0
connect = 127.0.0.1:{echo}
CAfile = {ca}
verify = 2
[down]
accept = 127.0.0.1:0
connect = 127.0.0.1:{dead}
[client]
client = yes
accept = 127.0.0.1:0
connect = 127.0.0.1:{server}
CAfile = {ca}
verifyChain = yes
checkHost = localhost
[mistrusting]
client = yes
accept = 127.0.0.1:0
connect = 127.0.0.1:{server}
CAfile = {other}
verify = 2
[naive]
client = yes
accept = 127.0.0.1:0
connect = 127.0.0.1:{server}
"""


def play_lopsided(daemon: Culvert, backend: Listener, trust: Path) -> None:
    """Five bytes to the socket, eleven to TLS; then the same with a reset by the client."""
    for end in ("in order", "by reset"):
        peer = open_tls(daemon.port("lopsided"), trust)
        plain = backend.accept()
        peer.send(b"12345")
        assert plain.recv(5) == b"12345"
        plain.sendall(b"12345678901")
        assert read_exactly(peer, 11) == b"12345678901"
        if end == "in order":
            peer.end()
        else:
            reset(peer.sock)
        with contextlib.suppress(ConnectionError):
            assert plain.recv(1) == b""
        plain.close()
        if end == "in order":
            assert read_all(peer) == b""
            peer.close()


def shake_hands_badly(port: int, context: SSL.Context) -> None:
    """A TLS client that is to be refused, in its handshake or (TLS 1.3) at its first read."""
    peer = TlsPeer(dial(port), context, server=False)
    with pytest.raises((SSL.Error, ConnectionError)):
        peer.handshake()
        peer.recv()
    peer.close()


@dataclass(frozen=True)
class Session:
    """What a session left in the log, and the ports of its fixed peers."""

    daemon: Culvert
    server: int
    dead: int

    @property
    def log(self) -> LogLines:
        """The daemon's log."""
        return self.daemon.log

    def log_of(self, identifier: str) -> list[str]:
        """The lines of one connection."""
        return [line for line in self.log.lines if f"[{identifier}]: " in line]

    def level(self, text: str) -> int:
        """The level of the lines whose whole text matches `text`; there is one at least."""
        found = {
            int(match["level"])
            for line in self.log.lines
            if (match := LOG_LINE.match(line)) and re.fullmatch(text, match["text"])
        }
        assert len(found) == 1, f"{text!r} at the levels {found}:\n" + "\n".join(self.log.lines)
        return found.pop()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Session]:
    """A daemon that has served, refused and failed."""
    trust = certificates.ca.cert
    lopsided = Listener()
    with fixed_ports(2) as (server, dead), EchoServer() as echo:
        services = configuration(certificates, echo.port, dead, lopsided.port, server)
        with Culvert(tmp_path_factory.mktemp("log"), services) as daemon:
            say_tls(server, trust)
            say_plain(daemon.port("client"))
            say_plain(daemon.port("client"))
            play_lopsided(daemon, lopsided, trust)
            shake_hands_badly(daemon.port("strict"), client_context("TLSv1.2", trust=trust))
            shake_hands_badly(
                daemon.port("strict"), client_context("TLSv1.2", trust=trust, leaf=certificates.stranger)
            )
            knock(daemon.port("mistrusting"))
            refused_tls(daemon.port("down"), client_context(trust=trust))
            daemon.await_log("Connection refused")
            daemon.await_log(r"SSL_connect: .*certificate verify failed")
            ended = r"Connection (closed|reset): 11 byte\(s\) sent to TLS"
            eventually(lambda: len(daemon.log.find(ended)) == 2, "the ends of [lopsided]")
            yield Session(daemon, server, dead)
    lopsided.close()


def test_every_line_has_the_form(session: Session) -> None:
    assert all(LOG_LINE.match(line) for line in session.log.lines)


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (5, r"Reading configuration from file /.*/culvert\.conf"),
        (5, r"Configuration successful"),
        (6, r"Service \[server\] \(FD=\d+\) bound to 127\.0\.0\.1:\d+"),
        (6, r"Accepting new connections"),
        (5, r"Service \[server\] accepted connection from 127\.0\.0\.1:\d+"),
        (5, r"Service \[server\] connected remote server from 127\.0\.0\.1:\d+"),
        (5, r"Service \[client\] connected remote server from 127\.0\.0\.1:\d+"),
        (6, r"TLS accepted: new session negotiated"),
        (6, r"TLS accepted: previous session reused"),
        (6, r"TLS connected: new session negotiated"),
        (6, r"TLS connected: previous session reused"),
        (4, r"Service \[naive\] needs authentication to prevent MITM attacks"),
        (4, r"Rejected by CERT at depth=\d: .*CN ?= ?stranger.*"),
        (3, r"SSL_accept: .*peer did not return a certificate.*"),
        (3, r"SSL_accept: .*certificate verify failed.*"),
        (3, r"SSL_connect: .*certificate verify failed.*"),
        (5, r"Connection closed: 25 byte\(s\) sent to TLS, 25 byte\(s\) sent to socket"),
        (5, r"Connection closed: 11 byte\(s\) sent to TLS, 5 byte\(s\) sent to socket"),
        (5, r"Connection reset: 11 byte\(s\) sent to TLS, 5 byte\(s\) sent to socket"),
    ],
)
def test_a_line_of_the_table(session: Session, level: int, text: str) -> None:
    assert session.level(text) == level


def test_an_alert_is_told_in_the_words_of_openssl(session: Session) -> None:
    assert session.log.find(r"LOG3\[\d+\]: SSL_accept: .*alert unknown ca")


def test_only_services_without_verification_are_warned_about(session: Session) -> None:
    warned = session.log.find(r"Service \[(\w+)\] needs authentication")
    assert [match[1] for match in warned] == ["naive"]


def test_a_start_announces_each_address_once_and_then_accepts(session: Session) -> None:
    services = ["server", "lopsided", "strict", "down", "client", "mistrusting", "naive"]
    lines = session.log.lines
    accepting = [number for number, line in enumerate(lines) if "Accepting new connections" in line]
    assert len(accepting) == 1
    bound = [
        (number, match[1])
        for number, line in enumerate(lines)
        if (match := re.search(r"Service \[(\w+)\] \(FD=\d+\) bound to", line))
    ]
    assert [name for _, name in bound] == services
    assert all(number < accepting[0] for number, _ in bound)


def test_a_handshake_names_version_cipher_and_group(session: Session) -> None:
    for identifier in {m[1] for m in session.log.find(r"LOG6\[(\d+)\]: TLS (?:accepted|connected): new")}:
        told = "\n".join(session.log_of(identifier))
        assert re.search(r"TLSv1\.[23]", told)
        assert re.search(r"TLS_(AES|CHACHA20)_\w+", told)
        assert re.search(r"X25519|P-256|secp256r1|prime256v1", told)


def test_a_failed_handshake_names_the_client(session: Session) -> None:
    for failed in session.log.find(r"LOG3\[(\d+)\]: SSL_accept: "):
        lines = session.log_of(failed[1])
        accepted = re.search(r"accepted connection from (\S+)", "\n".join(lines))
        assert accepted
        assert [line for line in lines if accepted[1] in line and "accepted connection" not in line]


def test_a_backend_that_is_down_is_named_with_the_reason(session: Session) -> None:
    assert session.log.find(rf"LOG3\[\d+\]: .*127\.0\.0\.1:{session.dead}\b.*Connection refused")


def test_the_lines_of_a_connection_come_in_order(session: Session) -> None:
    first = session.log.find(r"LOG5\[(\d+)\]: Service \[server\] accepted connection from")[0][1]
    told = "\n".join(session.log_of(first))
    assert re.search(
        r"(?s)accepted connection from.*TLS accepted: new session negotiated"
        r".*connected remote server from.*Connection closed: ",
        told,
    )
