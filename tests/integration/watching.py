"""A daemon that watches its files, and the ways in which they are renewed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .certificates import Certificates, Leaf
from .echo import finish, open_tls
from .harness import Culvert

Start = Callable[..., Culvert]

WATCHING = r"LOG6\[main\]: Process (\d+) watches \d+ path\(s\) for changes"

ACCEPTING = "Accepting new connections"


@dataclass(frozen=True)
class Files:
    """The certificate and the key that a service names."""

    folder: Path

    @property
    def cert(self) -> Path:
        return self.folder / "live.crt"

    @property
    def key(self) -> Path:
        return self.folder / "live.key"

    def install(self, leaf: Leaf) -> None:
        """Puts a certificate and its key in place, each by a rename."""
        for source, target in ((leaf.key, self.key), (leaf.cert, self.cert)):
            fresh = target.with_suffix(".new")
            write(fresh, source)
            fresh.rename(target)


def write(path: Path, source: Path) -> None:
    """Writes the contents of another file into a file, in its place where it exists."""
    path.touch(mode=0o600)
    path.write_bytes(source.read_bytes())


def service(files: Files, port: int = 0, more: str = "") -> str:
    """A service that gives back what it gets."""
    return (
        f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\ncert = {files.cert}\nkey = {files.key}\n{more}"
    )


def start(culvert: Start, services: str, **arguments: Any) -> Culvert:
    """Starts a daemon and waits until it watches its files."""
    daemon = culvert(f"watch = yes\n{services}", **arguments)
    daemon.await_log(WATCHING)
    return daemon


def watcher(daemon: Culvert) -> int:
    """The process that watches now."""
    return int(daemon.log.find(WATCHING)[-1][1])


def shown(daemon: Culvert, certificates: Certificates) -> object:
    """The certificate that a new connection sees."""
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    seen = peer.engine.get_peer_certificate()
    finish(peer)
    assert seen is not None
    return seen.to_cryptography()


def reloads(daemon: Culvert, since: int) -> int:
    """How many attempts there were to load the configuration anew."""
    return len(daemon.log.find(re.escape("Reading configuration from"), since))
