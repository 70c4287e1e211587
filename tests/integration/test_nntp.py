"""NNTP through the client end of a tunnel: INN's nnrpd behind it, INN's getlist in front."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .certificates import Certificates
from .daemon import fixed_ports, needs_root
from .harness import PATIENCE, Culvert, require
from .mail_servers import GROUP, Nnrpd, open_folder
from .peers import Peers, PlainPeer, background, read_all

pytestmark = needs_root


@dataclass(frozen=True)
class World:
    """nnrpd, and a daemon in front of it."""

    news: Nnrpd
    daemon: Culvert


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        port, nobody = stack.enter_context(fixed_ports(2))
        news = Nnrpd(stack.enter_context(open_folder()), certificates.server, port)
        stack.enter_context(news.running())
        client = (
            f"accept = 127.0.0.1:0\nclient = yes\nprotocol = nntp\nCAfile = {certificates.ca.cert}\n"
            "verifyChain = yes\ncheckIP = 127.0.0.1\n"
        )
        text = f"[news]\n{client}connect = 127.0.0.1:{port}\n[down]\n{client}connect = 127.0.0.1:{nobody}\n"
        yield World(news, stack.enter_context(Culvert(tmp_path_factory.mktemp("nntp"), text)))


def test_a_local_reader_lists_the_groups(world: World) -> None:
    mark = world.daemon.log.mark()
    listed = subprocess.run(
        [require("/usr/lib/news/bin/getlist"), "-h", "127.0.0.1", "-p", str(world.daemon.port("news"))],
        env={**os.environ, **world.news.environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.split() == [GROUP, "0000000000", "0000000001", "y"]
    world.daemon.await_log(r"TLS connected: new session negotiated", since=mark)


def test_a_local_reader_is_greeted_once_and_offered_no_second_tls(world: World, peers: Peers) -> None:
    sock = peers.dial(world.daemon.port("news"))
    sock.sendall(b"CAPABILITIES\r\nQUIT\r\n")
    first, *lines = read_all(PlainPeer(sock)).decode().splitlines()
    assert first.startswith("200 news.example.test ")
    assert lines[0].startswith("101 ")
    assert "STARTTLS" not in lines
    assert lines[-1].startswith("205 ")


def test_a_news_server_that_is_down_is_told_as_400(world: World, peers: Peers) -> None:
    assert read_all(PlainPeer(peers.dial(world.daemon.port("down")))).startswith(b"400 ")


def test_a_news_server_without_tls_is_told_in_its_words(
    tmp_path_factory: pytest.TempPathFactory, peers: Peers
) -> None:
    listener = peers.listen()
    text = (
        f"[news]\naccept = 127.0.0.1:0\nclient = yes\nprotocol = nntp\nconnect = 127.0.0.1:{listener.port}\n"
    )

    def serve() -> bytes:
        server = listener.accept()
        server.sendall(b"200 ready\r\n")
        asked = server.recv(100)
        server.sendall(b"580 Can not initiate TLS negotiation\r\n")
        return asked

    with Culvert(tmp_path_factory.mktemp("bare"), text) as daemon:
        serving = background(serve)
        assert read_all(PlainPeer(peers.dial(daemon.port("news")))).startswith(b"400 ")
        assert serving.result(PATIENCE) == b"STARTTLS\r\n"
        daemon.await_log(
            r"LOG3\[\d+\]: Negotiation failed for 127\S+ \(server 127\S+\): the server refused STARTTLS: "
            r'"580 Can not initiate TLS negotiation"'
        )
