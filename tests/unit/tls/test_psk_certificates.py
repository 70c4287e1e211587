"""Pre-shared keys beside certificates: what stands for a key that a server does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..identities import write
from .certificates import certify, common_name, write_identity
from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])


@VERSIONS
@pytest.mark.parametrize("more", ["", "verify = 0", "requireCert = yes", "allowPSK = me"])
def test_a_certificate_that_nobody_verifies_stands_for_no_key(
    tmp_path: Path, version: str, more: str
) -> None:
    """Anybody in the middle has such a one."""
    keys = write(tmp_path / "keys", b"me:00112233445566778899aabbccddeeff\n")
    shown = write_identity(tmp_path / "shown.pem", certify(common_name("anybody")))
    client = context(version, f"PSKsecrets = {keys}", *filter(None, [more]), client=True)
    pair = Pair(client, context(version, f"cert = {shown}")).shake_hands()
    assert pair.client.failure is not None


@VERSIONS
def test_a_certificate_that_is_verified_does(authority: Authority, tmp_path: Path, version: str) -> None:
    keys = write(tmp_path / "keys", b"me:00112233445566778899aabbccddeeff\n")
    client = context(version, f"PSKsecrets = {keys}", authority.trust, "verifyChain = yes", client=True)
    assert Pair(client, context(version, authority.server_cert)).shake_hands().accepted
