"""STARTTLS between Culvert and stunnel4, each at either end: a mail client before, a server behind."""

from __future__ import annotations

import contextlib
import imaplib
import poplib
import smtplib
from collections.abc import Callable, Iterator

import pytest

from .certificates import Certificates
from .daemon import fixed_ports, needs_root
from .harness import PATIENCE, Culvert
from .mail_servers import PASSWORD, USER, Dovecot, Postfix, open_folder
from .stunnel import Stunnel

pytestmark = needs_root

Ports = dict[tuple[str, str], int]
"""Where a local client connects, by who is the client end and by protocol."""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Ports]:
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(fixed_ports(7))
        dovecot = Dovecot(stack.enter_context(open_folder()), certificates.server, taken[:4])
        postfix = Postfix(stack.enter_context(open_folder()), certificates.server, taken[4:], dovecot.sasl)
        stack.enter_context(dovecot.running())
        stack.enter_context(postfix.running())
        behind = {"smtp": postfix.clear, "imap": dovecot.imap, "pop3": dovecot.pop3}
        servers = server_sections(certificates, behind)
        folders = [tmp_path_factory.mktemp("end") for _ in range(4)]
        culvert = stack.enter_context(Culvert(folders[0], servers))
        stunnel = stack.enter_context(Stunnel(folders[1], servers))
        to_stunnel = client_sections(certificates, {name: stunnel.ports[name] for name in behind})
        to_culvert = client_sections(certificates, {name: culvert.port(name) for name in behind})
        culverts = stack.enter_context(Culvert(folders[2], to_stunnel))
        stunnels = stack.enter_context(Stunnel(folders[3], to_culvert))
        yield {
            **{("culvert", name): culverts.port(name) for name in behind},
            **{("stunnel", name): stunnels.ports[name] for name in behind},
        }


def server_sections(certificates: Certificates, behind: dict[str, int]) -> str:
    leaf = certificates.server
    return "".join(
        f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\nprotocol = {name}\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
        for name, port in behind.items()
    )


def client_sections(certificates: Certificates, ahead: dict[str, int]) -> str:
    return "".join(
        f"[{name}]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\nprotocol = {name}\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckIP = 127.0.0.1\n"
        for name, port in ahead.items()
    )


def use_smtp(port: int) -> None:
    with smtplib.SMTP("localhost", port, timeout=PATIENCE) as client:
        assert client.ehlo("me")[0] == 250
        assert client.mail("b@example.com")[0] == 250
        assert client.rcpt("a@example.test")[0] == 250


def use_imap(port: int) -> None:
    with imaplib.IMAP4("localhost", port, timeout=PATIENCE) as client:
        client.login(USER, PASSWORD)
        assert client.select("INBOX")[0] == "OK"


def use_pop3(port: int) -> None:
    client = poplib.POP3("localhost", port, timeout=PATIENCE)
    client.user(USER)
    client.pass_(PASSWORD)
    client.quit()


@pytest.mark.parametrize("use", [use_smtp, use_imap, use_pop3], ids=["smtp", "imap", "pop3"])
@pytest.mark.parametrize("end", ["culvert", "stunnel"])
def test_a_session_crosses_both(ports: Ports, end: str, use: Callable[[int], None]) -> None:
    """`end` is the client end; the other one is the server end."""
    use(ports[end, use.__name__.removeprefix("use_")])
