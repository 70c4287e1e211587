"""A certificate authority, a server and a client that it certified: made once for all these tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ..identities import Identity, issue
from .certificates import alternative_names, certify, common_name, write_identity, write_trust


@dataclass(frozen=True)
class Authority:
    """What the tests sign with, and the files that configurations name."""

    folder: Path
    root: Identity
    server: Identity
    client: Identity

    @property
    def trust(self) -> str:
        return f"CAfile = {self.folder / 'root.pem'}"

    @property
    def server_cert(self) -> str:
        return f"cert = {self.folder / 'server.pem'}"

    @property
    def client_cert(self) -> str:
        return f"cert = {self.folder / 'client.pem'}"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    root = issue("root")
    server = certify(common_name("server"), alternative_names(["server.test"]), issuer=root)
    client = certify(common_name("client"), issuer=root)
    write_trust(folder / "root.pem", root)
    write_identity(folder / "server.pem", server)
    write_identity(folder / "client.pem", client)
    return Authority(folder, root, server, client)
