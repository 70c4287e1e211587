"""PROXY headers together with STARTTLS: Dovecot learns the client's address in front of its own greeting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .certificates import Certificates
from .daemon import fixed_ports, needs_root
from .harness import Culvert
from .mail_servers import PASSWORD, USER, Dovecot, open_folder
from .peers import TlsPeer, client_context
from .proxies import CLIENT, come

pytestmark = needs_root


class BehindProxies(Dovecot):
    """A Dovecot whose IMAP clients in clear bring PROXY headers."""

    def _configuration(self, name: str, imap: int, pop3: int) -> str:
        listening = f"port = {self.imap}\n"
        text = super()._configuration(name, imap, pop3).replace(listening, f"{listening}    haproxy = yes\n")
        return f"{text}haproxy_trusted_networks = 127.0.0.0/8\n"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_dovecot_learns_the_client(
    culvert: Callable[..., Culvert], certificates: Certificates, version: str
) -> None:
    leaf = certificates.server
    with open_folder() as folder, fixed_ports(4) as ports:
        server = BehindProxies(folder, leaf, ports)
        with server.running() as log:
            daemon = culvert(
                f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{server.imap}\nprotocol = imap\n"
                f"proxyProtocol = {version}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            )
            sock = come(daemon.port("s"))
            assert sock.recv(1000).startswith(b"* OK ")
            sock.sendall(b"a STARTTLS\r\n")
            assert sock.recv(1000).startswith(b"a OK ")
            peer = TlsPeer(sock, client_context(trust=certificates.ca.cert), server=False)
            peer.handshake()
            peer.send(f'b LOGIN {USER} "{PASSWORD}"\r\n'.encode())
            assert b"b OK " in peer.recv()
            assert log.wait(r"Login: .*rip=([^,]*)")[1] == CLIENT
            peer.close()
