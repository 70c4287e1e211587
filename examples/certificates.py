"""Certificates for the examples, made with `culvert ca` as a shell would."""

import subprocess
import sys
from pathlib import Path


def make(folder: Path) -> None:
    """A CA in `folder`/ca, and localhost.pem and alice.pem: certificate and key in one file each."""
    for command in (
        ["init", "--dir", "ca"],
        ["issue", "localhost", "127.0.0.1", "--dir", "ca", "--server", "--bundle"],
        ["issue", "alice", "--dir", "ca", "--client", "--bundle"],
    ):
        subprocess.run(
            [sys.executable, "-m", "culvert", "ca", *command],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
