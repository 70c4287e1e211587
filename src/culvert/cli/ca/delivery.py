"""The files that a certificate's owner gets: NAME.pem and NAME.key, or one NAME.pem with both in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from culvert.cli.ca.authority import SigningKey, key_pem
from culvert.cli.ca.files import PUBLIC, SECRET, create, replace
from culvert.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where they go. `bundle`: in one file. `overwrite`: in place of files of the same names."""

    folder: Path
    stem: str
    bundle: bool
    overwrite: bool

    @property
    def certificate_path(self) -> Path:
        """The certificate, with its key where it is a bundle."""
        return self.folder / f"{self.stem}.pem"

    @property
    def key_path(self) -> Path | None:
        """The private key; None where it is in the other file."""
        return None if self.bundle else self.folder / f"{self.stem}.key"

    def assert_possible(self, ca_folder: Path) -> None:
        """Raise ConfigurationError where `write` could not or must not do its work."""
        if not self.folder.is_dir():
            raise ConfigurationError.single(f"{self.folder} is not a folder that is there")
        if not os.access(self.folder, os.W_OK):
            raise ConfigurationError.single(f"{self.folder} cannot be written to")
        # A certificate that was issued for "ca" would take the place of the CA's own files.
        if self.folder.resolve().is_relative_to(ca_folder.resolve()):
            raise ConfigurationError.single(
                f"{self.folder} is the CA's own folder; what is handed out goes elsewhere",
                hint="name a folder by --out",
            )
        for path in (self.certificate_path, self.key_path):
            if path is not None and path.exists() and not self.overwrite:
                raise ConfigurationError.single(
                    f"{path} exists already, and is left as it is",
                    hint="--replace puts a new certificate and key in its place",
                )

    def write(self, certificate: x509.Certificate, key: SigningKey) -> None:
        """Write the files, the key for its owner only. Raises ConfigurationError.

        The certificate stands alone, for it was signed by the root that its peers have in CAfile: that is
        the whole chain that a TLS peer sends (RFC 8446, 4.4.2).
        """
        put = replace if self.overwrite else create
        certificate_pem, private_pem = certificate.public_bytes(Encoding.PEM), key_pem(key)
        if self.key_path is None:
            put(self.certificate_path, private_pem + certificate_pem, SECRET)
        else:
            put(self.key_path, private_pem, SECRET)
            put(self.certificate_path, certificate_pem, PUBLIC)
