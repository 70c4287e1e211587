"""A ClientHello that comes in pieces: byte by byte, and split over several TLS records."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

import pytest
from OpenSSL import SSL

from .certificates import Leaf
from .harness import Culvert
from .peers import Peers, TlsPeer, client_context, read_all
from .pki import Pki, issue

RECORD_HEADER = 5


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Culvert]:
    folder = tmp_path_factory.mktemp("sni")

    def own(name: str) -> str:
        leaf: Leaf = issue(pki.root, name, folder=folder)
        return f"exec = /bin/echo\nexecArgs = echo {name}\ncert = {leaf.cert}\nkey = {leaf.key}\n"

    text = f"[primary]\naccept = 127.0.0.1:0\n{own('primary')}"
    text += f"[named]\nsni = primary:named.example\n{own('named')}"
    with Culvert(folder, text) as daemon:
        yield daemon


def split(hello: bytes, size: int) -> bytes:
    """The same handshake message in records of at most `size` bytes (RFC 8446, 5.1)."""
    kind, version, length = struct.unpack("!B2sH", hello[:RECORD_HEADER])
    assert length == len(hello) - RECORD_HEADER, "a ClientHello fits one record"
    body = hello[RECORD_HEADER:]
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(struct.pack("!B2sH", kind, version, len(piece)) + piece for piece in pieces)


def hello(peer: TlsPeer) -> bytes:
    """The first flight of a client, not sent."""
    with contextlib.suppress(SSL.WantReadError):
        peer.engine.do_handshake()
    return peer.pending()


@pytest.mark.parametrize("name", ["named", "primary"])
@pytest.mark.parametrize(("record", "segment"), [(16384, 1), (64, 4096), (1, 4096), (3, 2)])
def test_a_hello_in_pieces(
    *, daemon: Culvert, peers: Peers, version: str, name: str, record: int, segment: int
) -> None:
    sock = peers.dial(daemon.port("primary"))
    peer = TlsPeer(sock, client_context(version), server=False, name=f"{name}.example")
    flight = split(hello(peer), record)
    for at in range(0, len(flight), segment):
        sock.sendall(flight[at : at + segment])
    peer.handshake()
    assert read_all(peer) == f"{name}\n".encode()
