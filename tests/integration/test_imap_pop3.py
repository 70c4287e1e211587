"""IMAP and POP3 through both ends of a tunnel: Dovecot behind it, four clients in front."""

from __future__ import annotations

import contextlib
import imaplib
import poplib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import fixed_ports, needs_root
from .harness import PATIENCE, Culvert, require
from .mail_servers import PASSWORD, USER, Dovecot, open_folder
from .openssl import s_client
from .peers import Peers, PlainPeer, TlsPeer, client_context, read_all

pytestmark = needs_root

CREDENTIALS = f"{USER}:{PASSWORD}"


@dataclass(frozen=True)
class World:
    """Dovecot, and a daemon in front of it."""

    daemon: Culvert
    trust: Path

    def port(self, service: str) -> int:
        return self.daemon.port(service)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.trust)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        *ports, nobody = stack.enter_context(fixed_ports(5))
        dovecot = Dovecot(stack.enter_context(open_folder()), certificates.server, ports)
        stack.enter_context(dovecot.running())
        services = configuration(certificates, dovecot, nobody)
        daemon = stack.enter_context(Culvert(tmp_path_factory.mktemp("dovecot"), services))
        yield World(daemon, certificates.ca.cert)


def configuration(certificates: Certificates, dovecot: Dovecot, nobody: int) -> str:
    leaf = certificates.server
    server = f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    client = f"client = yes\nCAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckIP = 127.0.0.1\n"
    sections = {
        "imap": (dovecot.imap, "imap", server),
        "pop3": (dovecot.pop3, "pop3", server),
        "imap-client": (dovecot.imap_tls, "imap", client),
        "pop3-client": (dovecot.pop3_tls, "pop3", client),
        "imap-no-tls": (dovecot.imap, "imap", client),
        "pop3-no-tls": (dovecot.pop3, "pop3", client),
        "imap-down": (nobody, "imap", server),
        "pop3-down": (nobody, "pop3", server),
        "crossed": (dovecot.pop3_tls, "imap", client),
    }
    return "".join(
        f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\nprotocol = {protocol}\n{options}"
        for name, (port, protocol, options) in sections.items()
    )


def curl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs curl with its own words on standard error."""
    return subprocess.run(
        [require("curl"), "--silent", "--verbose", "--user", CREDENTIALS, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def use_imap(client: imaplib.IMAP4) -> None:
    """Logs in and leaves a mail."""
    client.login(USER, PASSWORD)
    assert client.append("INBOX", "", "", b"Subject: through the tunnel\r\n\r\nHello\r\n")[0] == "OK"
    status, _ = client.select("INBOX")
    assert status == "OK"
    status, found = client.search(None, "SUBJECT", '"through the tunnel"')
    assert status == "OK"
    assert found[0]
    client.logout()


# --- IMAP, the server end ---


def test_imaplib_logs_in_by_starttls(world: World) -> None:
    with imaplib.IMAP4("localhost", world.port("imap"), timeout=PATIENCE) as client:
        assert {"STARTTLS", "LOGINDISABLED"} <= set(client.capabilities)
        assert not [name for name in client.capabilities if name.startswith("AUTH=")]
        client.starttls(world.tls())
        assert "AUTH=PLAIN" in client.capabilities
        use_imap(client)


def test_imaplib_is_refused_a_login_in_clear(world: World) -> None:
    with imaplib.IMAP4("localhost", world.port("imap"), timeout=PATIENCE) as client:
        with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
            client.login(USER, PASSWORD)
        client.logout()
    world.daemon.await_log(r"LOG6\[\d+\]: \S+ left before TLS: LOGOUT")
    assert not world.daemon.log.find(PASSWORD)


def test_curl_reads_imap_by_starttls(world: World) -> None:
    visit = curl("--ssl-reqd", "--cacert", world.trust, f"imap://localhost:{world.port('imap')}/")
    assert visit.returncode == 0, visit.stderr
    assert "INBOX" in visit.stdout


def test_openssl_meets_imap_by_starttls(world: World, version: str) -> None:
    visit = s_client(
        world.port("imap"),
        *("-starttls", "imap", "-CAfile", world.trust, "-verify_return_error"),
        said=f'a LOGIN {USER} "{PASSWORD}"\nb LOGOUT\n',
        version=version,
    )
    assert "a OK" in visit.received
    assert "Logged in" in visit.received


def test_commands_put_behind_starttls_do_not_reach_the_imap_server(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("imap"))
    greeting = sock.recv(4096)
    assert greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
    assert greeting.endswith(b" STARTTLS LOGINDISABLED] Dovecot (Debian) ready.\r\n")
    mark = world.daemon.log.mark()
    sock.sendall(b'a STARTTLS\r\nb LOGIN %b "%b"\r\n' % (USER.encode(), PASSWORD.encode()))
    assert sock.recv(4096) == b"a OK Begin TLS negotiation\r\n"
    tls = TlsPeer(sock, client_context(trust=world.trust), server=False)
    tls.handshake()
    tls.send(b"c SELECT INBOX\r\n")
    assert tls.recv().startswith(b"c BAD ")  # nobody has logged in
    world.daemon.await_log(r"LOG4\[\d+\]: \d+ byte\(s\) that 127\S+ sent in clear, .* discarded", since=mark)


# --- IMAP, the client end ---


def test_a_local_imap_client_logs_in_without_tls(world: World) -> None:
    with imaplib.IMAP4("localhost", world.port("imap-client"), timeout=PATIENCE) as client:
        assert "AUTH=PLAIN" in client.capabilities
        assert "LOGINDISABLED" not in client.capabilities
        use_imap(client)


def test_a_local_imap_client_is_greeted_once(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("imap-client"))
    sock.sendall(b"a LOGOUT\r\n")
    said = read_all(PlainPeer(sock))
    assert said.startswith(b"* OK Dovecot (Debian) ready.\r\n* BYE ")
    assert said.count(b"* OK") == 1
    assert b"CAPABILITY" not in said


def test_curl_reads_imap_without_tls(world: World) -> None:
    visit = curl(f"imap://localhost:{world.port('imap-client')}/")
    assert visit.returncode == 0, visit.stderr
    assert "INBOX" in visit.stdout


# --- POP3, the server end ---


def test_poplib_logs_in_by_stls(world: World) -> None:
    client = poplib.POP3("localhost", world.port("pop3"), timeout=PATIENCE)
    offered = client.capa()
    assert "STLS" in offered
    assert not {"USER", "SASL"} & set(offered)
    client.stls(world.tls())
    assert "USER" in client.capa()
    client.user(USER)
    client.pass_(PASSWORD)
    assert client.stat()[0] >= 0
    client.quit()


def test_poplib_is_refused_a_login_in_clear(world: World) -> None:
    client = poplib.POP3("localhost", world.port("pop3"), timeout=PATIENCE)
    with pytest.raises(poplib.error_proto, match="issue STLS first"):
        client.user(USER)
    with pytest.raises(poplib.error_proto, match="issue STLS first"):
        client.pass_(PASSWORD)
    client.quit()
    world.daemon.await_log(r"LOG6\[\d+\]: \S+ left before TLS: QUIT")


def test_curl_reads_pop3_by_stls(world: World) -> None:
    visit = curl("--ssl-reqd", "--cacert", world.trust, f"pop3://localhost:{world.port('pop3')}/")
    assert visit.returncode == 0, visit.stderr
    assert "+OK Logged in." in visit.stderr


def test_openssl_meets_pop3_by_stls(world: World, version: str) -> None:
    visit = s_client(
        world.port("pop3"),
        *("-starttls", "pop3", "-CAfile", world.trust, "-verify_return_error"),
        said=f"USER {USER}\nPASS {PASSWORD}\nQUIT\n",
        version=version,
    )
    assert "+OK Logged in." in visit.received


def test_commands_put_behind_stls_do_not_reach_the_pop3_server(world: World, peers: Peers) -> None:
    sock = peers.dial(world.port("pop3"))
    assert sock.recv(4096) == b"+OK Dovecot (Debian) ready.\r\n"
    mark = world.daemon.log.mark()
    sock.sendall(b"STLS\r\nUSER injected\r\n")
    assert sock.recv(4096) == b"+OK Begin TLS negotiation\r\n"
    tls = TlsPeer(sock, client_context(trust=world.trust), server=False)
    tls.handshake()
    tls.send(b"PASS %b\r\n" % PASSWORD.encode())
    assert tls.recv().startswith(b"-ERR")  # nobody has said who
    world.daemon.await_log(r"LOG4\[\d+\]: 15 byte\(s\) that 127\S+ sent in clear, .* discarded", since=mark)


# --- POP3, the client end ---


def test_a_local_pop3_client_logs_in_without_tls(world: World) -> None:
    client = poplib.POP3("localhost", world.port("pop3-client"), timeout=PATIENCE)
    assert client.getwelcome() == b"+OK Dovecot (Debian) ready."
    client.user(USER)
    client.pass_(PASSWORD)
    assert client.stat()[0] >= 0
    client.quit()


def test_curl_reads_pop3_without_tls(world: World) -> None:
    visit = curl(f"pop3://localhost:{world.port('pop3-client')}/")
    assert visit.returncode == 0, visit.stderr
    assert "+OK Logged in." in visit.stderr


# --- what does not go ---


@pytest.mark.parametrize(
    ("service", "answer", "reason"),
    [
        ("imap-no-tls", b"* BYE [UNAVAILABLE] ", "the server offers no STARTTLS"),
        ("pop3-no-tls", b"-ERR [SYS/TEMP] ", r'the server refused STLS: "-ERR .*"'),
        ("imap-down", b"* BYE [UNAVAILABLE] ", "No more addresses to connect"),
        ("pop3-down", b"-ERR [SYS/TEMP] ", "No more addresses to connect"),
        ("crossed", b"* BYE [UNAVAILABLE] ", r'does not speak IMAP, it said "\+OK Dovecot'),
    ],
)
def test_a_server_that_will_not_do_is_told_to_the_client(
    world: World, peers: Peers, service: str, answer: bytes, reason: str
) -> None:
    mark = world.daemon.log.mark()
    told = read_all(PlainPeer(peers.dial(world.port(service))))
    assert told.startswith(answer)
    assert told.count(b"\r\n") == 1
    world.daemon.await_log(rf"LOG3\[\d+\]: .*{reason}", since=mark)
