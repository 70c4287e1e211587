"""The certificate authorities that the system trusts, where a program names none of its own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from culvert.errors import ConfigurationError

FILE_VARIABLE, FOLDER_VARIABLE = "SSL_CERT_FILE", "SSL_CERT_DIR"
"""Environment: a file, or a folder, to take instead, as with OpenSSL's own programs."""

FOLDERS = (
    "/etc/ssl/certs",  # Debian, Ubuntu, SUSE, Alpine, Arch
    "/etc/pki/ca-trust/extracted/pem/directory-hash",  # Fedora, Red Hat
)
"""Where systems have them by the hash of their names, so that only those are read that are needed. The
OpenSSL of the `cryptography` wheel knows of none of these places."""

FILES = ("/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
"""Where systems have all of them in one file."""

_HASH_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def trusted() -> tuple[str, str]:
    """The option and its value that stand for the system's authorities.

    Raises ConfigurationError where there are none.
    """
    for option, variable in (("CAfile", FILE_VARIABLE), ("CApath", FOLDER_VARIABLE)):
        if chosen := os.environ.get(variable):
            return option, chosen
    for folder in FOLDERS:
        if _is_hashed(folder):
            return "CApath", folder
    for path in FILES:
        if Path(path).is_file():
            return "CAfile", path
    raise ConfigurationError.single(
        "There are no trusted authorities where systems have them",
        hint=f"install ca-certificates, set {FILE_VARIABLE}, or give 'cafile'",
    )


def _is_hashed(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_HASH_NAME.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False
