"""CRLpath: what counts while files in it come, change and cannot be read."""

from __future__ import annotations

import base64
import textwrap
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..identities import issue
from .certificates import publish
from .conftest import Authority
from .ends import TLS13, Pair, context


def break_issuer(path: Path) -> None:
    """Give the list an issuer that `cryptography` does not look into, and OpenSSL cannot read."""
    der = x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER)
    broken = der.replace(b"\x0c\x05other", b"\x00\x05other")
    assert broken != der
    lines = textwrap.fill(base64.b64encode(broken).decode(), 64)
    path.write_text(f"-----BEGIN X509 CRL-----\n{lines}\n-----END X509 CRL-----\n")


def test_a_list_that_openssl_cannot_read_holds_up_no_other(authority: Authority, tmp_path: Path) -> None:
    server = context(
        TLS13, authority.server_cert, authority.trust, "verifyChain = yes", f"CRLpath = {tmp_path}"
    )
    client = context(TLS13, authority.client_cert, client=True)
    publish(tmp_path, authority.root)
    assert server.refresh(time.monotonic()) == []
    assert Pair(client, server).shake_hands().accepted
    broken = publish(tmp_path, issue("other"))
    break_issuer(broken)
    publish(tmp_path, authority.root, authority.client)
    faults = server.refresh(time.monotonic())
    assert len(faults) == 1
    assert str(broken) in faults[0]
    assert not Pair(client, server).shake_hands().accepted
