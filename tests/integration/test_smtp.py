"""SMTP through both ends of a tunnel: Postfix behind it, and swaks, curl, openssl and smtplib in front."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates, Leaf
from .daemon import fixed_ports, needs_root
from .harness import PATIENCE, Culvert, LogLines, require
from .mail_servers import PASSWORD, USER, Dovecot, Postfix, open_folder
from .openssl import s_client
from .peers import (
    Listener,
    Peers,
    PlainPeer,
    TlsPeer,
    background,
    client_context,
    dial,
    read_all,
    server_context,
)

pytestmark = needs_root

LOGIN = f"protocolUsername = {USER}\nprotocolPassword = {PASSWORD}\n"


@dataclass(frozen=True)
class World:
    """Postfix with its log, and a daemon in front of it."""

    postfix: Postfix
    log: LogLines
    daemon: Culvert
    trust: Path
    other: Leaf

    def port(self, service: str) -> int:
        return self.daemon.port(service)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    leaf = certificates.server
    with contextlib.ExitStack() as stack:
        ports = stack.enter_context(fixed_ports(8))
        dovecot = Dovecot(stack.enter_context(open_folder()), leaf, ports[:4])
        postfix = Postfix(stack.enter_context(open_folder()), leaf, ports[4:7], dovecot.sasl)
        stack.enter_context(dovecot.running())
        log = stack.enter_context(postfix.running())
        other = certificates.ca.leaf("other mail", hosts=("mail.example.org",), addresses=())
        services = configuration(certificates, other, postfix, ports[7])
        daemon = stack.enter_context(Culvert(tmp_path_factory.mktemp("smtp"), services))
        yield World(postfix, log, daemon, certificates.ca.cert, other)


def configuration(certificates: Certificates, other: Leaf, postfix: Postfix, nobody: int) -> str:
    leaf = certificates.server
    server = f"protocol = smtp\ncert = {leaf.cert}\nkey = {leaf.key}\n"
    client = (
        f"protocol = smtp\nclient = yes\nCAfile = {certificates.ca.cert}\nverifyChain = yes\n"
        "checkIP = 127.0.0.1\n"
    )
    sections = {
        "server": (postfix.clear, server),
        "impatient": (postfix.clear, server + "TIMEOUTbusy = 1\n"),
        "down": (nobody, server),
        "client": (postfix.tls, client + "protocolHost = relay.example.test\n"),
        "plain": (postfix.login, client + LOGIN),
        "login": (postfix.login, client + LOGIN + "protocolAuthentication = login\n"),
        "wrong": (postfix.login, client + f"protocolUsername = {USER}\nprotocolPassword = wr0ng\n"),
        "no-login": (postfix.tls, client + LOGIN),
        "no-tls": (postfix.clear, client),
        "client-down": (nobody, client),
        "mistrusting": (postfix.tls, client.replace("127.0.0.1", "192.0.2.1")),
    }
    return "".join(
        f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n{options}"
        for name, (port, options) in sections.items()
    ) + (f"[by name]\nsni = server:mail.example.org\ncert = {other.cert}\nkey = {other.key}\n")


def swaks(port: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Sends a mail; `arguments` are more of swaks'."""
    command = [require("swaks"), "--server", f"127.0.0.1:{port}", "--to", "a@example.test"]
    return subprocess.run(
        [*command, "--from", "b@example.com", "--timeout", "15", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def subject() -> str:
    """A subject that no other mail has."""
    return uuid.uuid4().hex


def message(about: str) -> str:
    return f"Subject: {about}\r\n\r\nHello\r\n"


def told(sock: socket.socket) -> bytes:
    """All that is said until the orderly end; an RST is an error."""
    return read_all(PlainPeer(sock))


def leaked(world: World) -> list[str]:
    """The credentials that are in the log, in any form that SMTP has for them."""
    forms = [f"\0{USER}\0{word}" for word in (PASSWORD, "wr0ng")]
    words = [*forms, PASSWORD, "wr0ng", USER]
    words += [base64.b64encode(word.encode()).decode() for word in words]
    log = "\n".join(world.daemon.log.lines)
    return [word for word in words if word in log]


# --- the server end ---


def test_swaks_sends_by_starttls(world: World) -> None:
    about, mark = subject(), world.log.mark()
    sent = swaks(
        world.port("server"),
        *("--tls", "--tls-verify", "--tls-ca-path", world.trust, "--header", f"Subject: {about}"),
    )
    assert sent.returncode == 0, sent.stdout
    assert "<~  250-PIPELINING" in sent.stdout  # the backend's own answer, inside TLS
    world.postfix.received(about)
    # One EHLO of two reached the backend, and no STARTTLS.
    world.log.wait(r"disconnect from .* ehlo=1 mail=1 rcpt=1 data=1 quit=1", since=mark)


def test_curl_sends_by_starttls(world: World, tmp_path: Path) -> None:
    about = subject()
    (tmp_path / "mail").write_text(message(about))
    sent = subprocess.run(
        [
            *(require("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", str(world.trust)),
            *("--mail-from", "b@example.com", "--mail-rcpt", "a@example.test", "--upload-file"),
            *(str(tmp_path / "mail"), f"smtp://localhost:{world.port('server')}"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    world.postfix.received(about)


def test_smtplib_sends_by_starttls(world: World) -> None:
    about = subject()
    with smtplib.SMTP("localhost", world.port("server"), timeout=PATIENCE) as client:
        client.ehlo("client.example.com")
        assert client.esmtp_features == {"starttls": ""}
        client.starttls(context=ssl.create_default_context(cafile=world.trust))
        client.sendmail("b@example.com", "a@example.test", message(about))
        assert "pipelining" in client.esmtp_features
    world.postfix.received(about)


def test_openssl_gets_the_certificate_by_starttls(world: World, version: str) -> None:
    visit = s_client(
        world.port("server"),
        *("-starttls", "smtp", "-CAfile", world.trust, "-verify_return_error"),
        said="EHLO me\r\nQUIT\r\n",
        version=version,
    )
    assert "250-PIPELINING" in visit.received
    assert "221 2.0.0 Bye" in visit.received


def test_a_service_of_another_name_shares_the_backend(world: World) -> None:
    visit = s_client(
        world.port("server"),
        *("-starttls", "smtp", "-CAfile", world.trust, "-verify_return_error"),
        *("-servername", "mail.example.org", "-verify_hostname", "mail.example.org"),
        said="EHLO me\r\nQUIT\r\n",
    )
    assert "250-PIPELINING" in visit.received, visit.said
    world.daemon.await_log(r"SNI: mail\.example\.org is for service \[by name\]")


def test_what_needs_tls_is_refused_before_it(world: World) -> None:
    mark = world.log.mark()
    with smtplib.SMTP("localhost", world.port("server"), timeout=PATIENCE) as client:
        client.ehlo("me")
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250
        assert client.docmd("MAIL", "FROM:<b@example.com>")[0] == 530
        response = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
        assert client.docmd("AUTH", f"PLAIN {response}")[0] == 530
        assert client.quit()[0] == 221
    world.daemon.await_log(r"LOG6\[\d+\]: \S+ left before TLS: QUIT")
    world.log.wait(r"disconnect from .* quit=1 commands=1$", since=mark)
    assert not world.daemon.log.find(response)


def test_commands_put_behind_starttls_do_not_reach_the_backend(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("server"))
    assert sock.recv(4096).startswith(b"220 mail.example.test ESMTP")
    mark = world.daemon.log.mark()
    sock.sendall(b"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<injected@example.com>\r\n")
    assert sock.recv(4096) == b"220 2.0.0 Ready to start TLS\r\n"
    tls = TlsPeer(sock, client_context(trust=world.trust), server=False)
    tls.handshake()
    tls.send(b"RCPT TO:<a@example.test>\r\n")
    assert tls.recv().startswith(b"503 5.5.1 ")  # need MAIL command
    world.daemon.await_log(r"LOG4\[\d+\]: 45 byte\(s\) that 127\S+ sent in clear, .* discarded", since=mark)


def test_a_backend_that_is_down_is_told_as_421(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("down"))
    assert told(sock) == b"421 4.3.2 Service not available, closing transmission channel\r\n"
    sent = swaks(world.port("down"), "--tls")
    assert "421 4.3.2" in sent.stdout


def test_a_client_that_says_nothing_is_told_and_left(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("impatient"))
    assert sock.recv(4096).startswith(b"220 ")
    assert told(sock).startswith(b"421 ")
    world.daemon.await_log(
        r"LOG3\[\d+\]: Negotiation failed for 127.0.0.1:\d+ \(server 127.0.0.1:\d+\): "
        r"the client does not say what is expected: TIMEOUTbusy \(1 s\) exceeded"
    )


@pytest.mark.parametrize("flood", [b"x" * 300_000, b"NOOP\r\n" * 50_000], ids=["line", "commands"])
def test_a_refusal_arrives_although_the_client_goes_on_sending(
    world: World, peers: Peers, flood: bytes
) -> None:
    sock = peers.dial(world.port("server"))
    assert sock.recv(4096).startswith(b"220 ")
    sending = background(sock.sendall, flood)
    answer = told(sock)
    assert answer.rsplit(b"\r\n", 2)[-2].startswith(b"421 ")
    sending.result(PATIENCE)


def test_a_client_that_leaves_in_the_middle_is_logged(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("server"))
    assert sock.recv(4096).startswith(b"220 ")
    mark = world.daemon.log.mark()
    sock.sendall(b"EHLO m")
    sock.close()
    world.daemon.await_log(r"LOG3\[\d+\]: Negotiation failed for 127.*: the client closed", since=mark)


def test_a_program_can_be_the_backend(world: World, tmp_path: Path) -> None:
    program = tmp_path / "smtpd"
    program.write_text(
        "#!/bin/sh\necho 220 program.example.com\nread line\necho 250 $line\nread line\necho 221 $line\n"
    )
    program.chmod(0o755)
    leaf = world.other
    text = f"accept = 127.0.0.1:0\nprotocol = smtp\ncert = {leaf.cert}\nkey = {leaf.key}\nexec = {program}\n"
    with Culvert(tmp_path, f"[plain]\n{text}[terminal]\n{text}pty = yes\n") as daemon:
        for service in ("plain", "terminal"):
            visit = s_client(daemon.port(service), "-starttls", "smtp", said="EHLO me\nQUIT\n")
            assert visit.received.replace("\r", "").endswith("250 EHLO me\n221 QUIT\n"), visit
            assert "220 program" not in visit.received


# --- the client end ---


def test_a_local_client_sends_in_clear(world: World) -> None:
    about, mark = subject(), world.log.mark()
    sent = swaks(world.port("client"), "--header", f"Subject: {about}")
    assert sent.returncode == 0, sent.stdout
    assert sent.stdout.count("<-  220 ") == 1  # one greeting, the server's
    assert "<-  220 mail.example.test ESMTP" in sent.stdout
    assert "STARTTLS" not in sent.stdout
    world.postfix.received(about)
    world.log.wait(r"disconnect from .* ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1", since=mark)


@pytest.mark.parametrize("service", ["plain", "login"])
def test_the_tunnel_logs_in_for_the_local_client(world: World, service: str) -> None:
    about, mark = subject(), world.log.mark()
    with smtplib.SMTP("localhost", world.port(service), timeout=PATIENCE) as client:
        client.sendmail("b@example.com", "a@example.test", message(about))
    world.postfix.received(about)
    world.log.wait(rf"sasl_method={service.upper()}, sasl_username={USER}", since=mark)
    world.daemon.await_log(rf"LOG6\[\d+\]: SMTP: logged in by AUTH {service.upper()}$")


def test_a_wrong_password_is_told_in_the_servers_words(world: World, peers: Peers) -> None:
    mark = world.daemon.log.mark()
    assert told(peers.dial(world.port("wrong"))).startswith(b"421 4.4.0 ")
    world.daemon.await_log(
        r'LOG3\[\d+\]: Negotiation failed for .*: the server refused the login: "535 5\.7\.8 Error',
        since=mark,
    )
    assert leaked(world) == []


def test_no_credentials_are_in_the_log(world: World, peers: Peers) -> None:
    for service in ("plain", "login"):
        assert peers.dial(world.port(service)).recv(4096).startswith(b"220 ")
    assert leaked(world) == []


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("no-tls", "the server offers no STARTTLS"),
        ("no-login", "the server does not offer AUTH PLAIN"),
        ("client-down", "No more addresses to connect"),
        ("mistrusting", "SSL_connect: .*certificate verify failed"),
    ],
)
def test_a_server_that_will_not_do_is_told_as_421(
    world: World, peers: Peers, service: str, reason: str
) -> None:
    mark = world.daemon.log.mark()
    assert told(peers.dial(world.port(service))).startswith(b"421 4.4.0 ")
    world.daemon.await_log(rf"LOG3\[\d+\]: .*{reason}", since=mark)


# --- servers that Debian does not have ---


@dataclass
class Hostile:
    """A daemon's client end, and the server that it comes to."""

    daemon: Culvert
    listener: Listener
    leaf: Leaf

    def meet(self, *answers: bytes) -> tuple[PlainPeer, PlainPeer]:
        """The local client and the server, which has greeted and answered as many commands."""
        client, server = PlainPeer(dial(self.daemon.port("c"))), PlainPeer(self.listener.accept())
        server.send(b"220 mail.example.com ESMTP\r\n")
        for answer in answers:
            assert server.recv()
            server.send(answer)
        return client, server


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Hostile]:
    listener = Listener()
    text = (
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{listener.port}\nprotocol = smtp\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckIP = 127.0.0.1\n"
    )
    with Culvert(tmp_path_factory.mktemp("hostile"), text) as daemon:
        yield Hostile(daemon, listener, certificates.server)
    listener.close()


OFFER = b"250-mail.example.com\r\n250 STARTTLS\r\n"


def test_answers_put_behind_the_servers_go_ahead_reach_nobody(hostile: Hostile) -> None:
    client, server = hostile.meet(OFFER, b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n")
    tls = TlsPeer(server.sock, server_context(hostile.leaf), server=True)
    tls.handshake()
    assert client.recv() == b"220 mail.example.com ESMTP\r\n"
    client.send(b"EHLO me\r\n")
    assert tls.recv() == b"EHLO me\r\n"
    tls.send(b"250 true\r\n")
    assert client.recv() == b"250 true\r\n"
    hostile.daemon.await_log(r"LOG4\[\d+\]: 30 byte\(s\) that 127\S+ sent in clear, .* discarded")
    client.close()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([OFFER, b"454 4.7.0 TLS not available\r\n"], 'refused STARTTLS: "454 4.7.0 TLS not available"'),
        ([b"421 4.3.2 shutting down\r\n"], 'refused EHLO: "421 4.3.2 shutting down"$'),
        ([b"250 \x1b[31mred\x00\r\n"], r'a line with a control character, "250 \.\[31mred\."$'),
        ([b"250-mail\r\n" * 200], "a reply of more than 128 lines"),
        ([b"250-" + b"x" * 20000], "a line of more than 8192 bytes"),
    ],
    ids=["refusal", "farewell", "control characters", "many lines", "long line"],
)
def test_what_a_server_does_wrong_is_logged_and_the_client_told(
    hostile: Hostile, answers: list[bytes], reason: str
) -> None:
    mark = hostile.daemon.log.mark()
    client, _ = hostile.meet(*answers)
    assert told(client.sock).startswith(b"421 4.4.0 ")
    hostile.daemon.await_log(rf"LOG3\[\d+\]: Negotiation failed for 127.*{reason}", since=mark)
    client.close()


def test_a_connection_that_breaks_after_the_greeting_is_no_orderly_end(hostile: Hostile) -> None:
    client, server = hostile.meet(OFFER, b"220 go\r\n")
    tls = TlsPeer(server.sock, server_context(hostile.leaf), server=True)
    tls.handshake()
    assert client.recv() == b"220 mail.example.com ESMTP\r\n"
    server.send(b"221 in clear\r\n")
    with pytest.raises(ConnectionResetError):
        read_all(client)
    client.close()
