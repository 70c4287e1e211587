"""A throw-away certificate authority: it lives as long as the demo and signs what the demo's servers show."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from culvert.cli.ca import authority, names
from culvert.cli.ca.delivery import Delivery

_LIFE = datetime.timedelta(days=1)


class Authority:
    """A CA whose key never leaves this process's memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._now = datetime.datetime.now(datetime.UTC)
        key = authority.generate_key(authority.KeyKind.ECDSA)
        self._authority = authority.Authority.create(name, key, _LIFE, self._now)

    def write_certificate(self, path: Path) -> None:
        """Write the CA's certificate as a PEM file, for `CAfile`."""
        path.write_bytes(self._authority.certificate.public_bytes(Encoding.PEM))

    def issue(self, path: Path, name: str, hosts: Sequence[str]) -> None:
        """Write a server's certificate and its new key to one .pem file that only the owner may read."""
        wanted = tuple(names.parse(host) for host in hosts)
        key = authority.generate_key(authority.KeyKind.ECDSA)
        request = authority.Request(wanted, authority.Purpose.SERVER, _LIFE, common_name=name)
        certificate = self._authority.issue(request, key, self._now)
        Delivery(path.parent, path.stem, bundle=True, overwrite=False).write(certificate, key)
