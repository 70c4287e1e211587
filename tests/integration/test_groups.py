"""The key exchange's group: post-quantum between two Culverts, X25519 with stunnel4, and the log names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .greeters import greeting
from .harness import Culvert
from .openssl import s_client
from .outcomes import Sayer
from .pki import Pki
from .stunnel import Stunnel

Start = Callable[..., Culvert]


def server(pki: Pki, port: int) -> str:
    """A server service with every default; stunnel can run it too."""
    leaf = pki.kinds["good"]
    return f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\ncert = {leaf.cert}\nkey = {leaf.key}\n"


def client(pki: Pki, port: int) -> str:
    """A client service with every default."""
    return (
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
        f"CAfile = {pki.files['root']}\nverifyChain = yes\n"
    )


def agreed(daemon: Culvert, group: str) -> None:
    """Waits for the line that names the group of a connection."""
    daemon.await_log(rf"LOG6\[\S+\]: .*group: {group}$")


def test_two_culverts(culvert: Start, pki: Pki) -> None:
    with Sayer(b"welcome\n") as backend:
        far = culvert(server(pki, backend.port))
        near = culvert(client(pki, far.port("s")))
        assert greeting(near.port("c")) == b"welcome\n"
        agreed(near, "X25519MLKEM768")
        agreed(far, "X25519MLKEM768")


@pytest.mark.parametrize("role", ["server", "client"])
def test_culvert_with_stunnel(culvert: Start, pki: Pki, tmp_path: Path, role: str) -> None:
    with Sayer(b"welcome\n") as backend:
        if role == "server":
            daemon = culvert(server(pki, backend.port))
            with Stunnel(tmp_path, client(pki, daemon.port("s"))) as stunnel:
                assert greeting(stunnel.ports["c"]) == b"welcome\n"
        else:
            with Stunnel(tmp_path, server(pki, backend.port)) as stunnel:
                daemon = culvert(client(pki, stunnel.ports["s"]))
                assert greeting(daemon.port("c")) == b"welcome\n"
        agreed(daemon, "[Xx]25519")


def test_a_reconnection_of_two_culverts_keeps_the_group(culvert: Start, pki: Pki) -> None:
    """A resumed TLS 1.3 session has a key exchange of its own."""
    with Sayer(b"welcome\n") as backend:
        far = culvert(server(pki, backend.port))
        near = culvert(client(pki, far.port("s")))
        assert [greeting(near.port("c")) for _ in range(2)] == [b"welcome\n"] * 2
        far.await_log("TLS accepted: previous session reused")
        assert len(far.log.find(r"group: X25519MLKEM768$")) == 2


def test_a_client_of_the_past_gets_its_group(culvert: Start, pki: Pki, version: str) -> None:
    with Sayer(b"welcome\n") as backend:
        daemon = culvert(server(pki, backend.port))
        # Below TLS 1.3 the certificate's own curve must be among the client's.
        others = [("P-521", "(secp521r1|P-521)")] if version == "TLSv1.3" else []
        for name, group in [("P-256", "(secp256r1|P-256|prime256v1)"), *others]:
            visit = s_client(daemon.port("s"), "-groups", name, version=version)
            assert visit.received == "welcome\n"
            agreed(daemon, group)
