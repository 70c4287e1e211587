"""Application protocols (RFC 7301) with openssl on the other side."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import PATIENCE, Culvert, require
from .peers import Peers, TlsPeer, background, server_context
from .test_peer_tools import running

Start = Callable[..., Culvert]
FLAG = pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])


def s_client(daemon: Culvert, *arguments: str) -> str:
    """What openssl prints of a connection to the service that shows its environment."""
    target = f"127.0.0.1:{daemon.port('s')}"
    command = [require("openssl"), "s_client", "-ign_eof", "-connect", target, *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


@FLAG
def test_a_server_chooses_its_first(culvert: Start, certificates: Certificates, flag: str) -> None:
    daemon = culvert(
        f"[s]\naccept = 127.0.0.1:0\nexec = /usr/bin/env\nalpn = h2, http/1.1\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    )
    for offered, chosen in (("http/1.1,h2", "h2"), ("spdy/3,http/1.1", "http/1.1")):
        mark = daemon.log.mark()
        shown = s_client(daemon, flag, "-alpn", offered)
        assert f"ALPN protocol: {chosen}" in shown
        assert f"SSL_ALPN_PROTOCOL={chosen}\n" in shown
        daemon.await_log(rf"LOG6\[\S+\]: ALPN: {chosen} negotiated$", since=mark)
    mark = daemon.log.mark()
    refused = s_client(daemon, flag, "-alpn", "spdy/3")
    assert "alert no application protocol" in refused
    assert "PATH=" not in refused
    daemon.await_log(r"LOG3\[\S+\]: SSL_accept: .*no application protocol", since=mark)
    without = s_client(daemon, flag)
    assert "No ALPN negotiated" in without
    assert "SSL_ALPN_PROTOCOL" not in without
    daemon.await_log(r"LOG6\[\S+\]: ALPN: no protocol negotiated$", since=mark)


@FLAG
def test_a_client_offers_its_list(
    culvert: Start, certificates: Certificates, peers: Peers, flag: str
) -> None:
    credentials = ("-cert", str(certificates.server.cert), "-key", str(certificates.server.key))
    command = (require("openssl"), "s_server", flag, "-alpn", "http/1.1,h2", "-accept", "127.0.0.1:0")
    with running(*command, *credentials) as output:
        port = output.wait(r"ACCEPT \S+:(\d+)").group(1)
        service = f"client = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
        daemon = culvert(f"[one]\n{service}alpn = h2\n[none]\n{service}alpn = spdy/3\n")
        peers.dial(daemon.port("one"))
        output.wait("ALPN protocols selected: h2")
        daemon.await_log(r"LOG6\[\S+\]: ALPN: h2 negotiated$")


def test_a_server_cannot_choose_what_was_not_offered(
    culvert: Start, certificates: Certificates, peers: Peers, version: str
) -> None:
    context = server_context(certificates.server, version)
    context.set_alpn_select_callback(lambda _connection, _offered: b"h3")
    listener = peers.listen()
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{listener.port}\nalpn = h2\n"
    )
    peers.dial(daemon.port("c"))
    handshake = background(TlsPeer(listener.accept(), context, server=True).handshake)
    daemon.await_log(r"LOG3\[\S+\]: SSL_connect: .*bad extension")
    with pytest.raises(SSL.Error):
        handshake.result(PATIENCE)


def test_a_client_program_is_told(culvert: Start, certificates: Certificates, peers: Peers) -> None:
    context = server_context(certificates.server)
    context.set_alpn_select_callback(lambda _connection, offered: offered[-1])
    listener = peers.listen()
    culvert(f"[c]\nclient = yes\nexec = /usr/bin/env\nconnect = 127.0.0.1:{listener.port}\nalpn = h2, mqtt\n")
    peer = TlsPeer(listener.accept(), context, server=True)
    peer.handshake()
    shown = b""
    while b"SSL_ALPN_PROTOCOL=mqtt\n" not in shown:
        data = peer.recv()
        assert data, shown
        shown += data
    peer.close()
