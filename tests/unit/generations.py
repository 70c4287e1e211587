"""Generations as the daemon builds them, from files that a test writes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from culvert.errors import ConfigurationError
from culvert.generation import Generation, builder
from culvert.source import ConfigurationSource

from .identities import issue


class Loader:
    """A configuration file and what is built from it, one generation after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "culvert.conf"
        identity = issue("server")
        pem = folder / "server.pem"
        pem.touch(mode=0o600)
        pem.write_bytes(identity.key_pem() + identity.cert_pem)
        self.head = f"foreground = quiet\nsyslog = no\noutput = {folder / 'log'}\ncert = {pem}\n"
        self._build = builder(ConfigurationSource(str(self.path)))
        self._built: list[Generation] = []

    def build(self, text: str, previous: Generation | None = None) -> Generation:
        """The generation of these options and services."""
        self.path.write_text(self.head + text)
        generation = self._build(previous)
        self._built.append(generation)
        return generation

    def refuse(self, text: str, previous: Generation | None = None) -> str:
        """What is said of a configuration that cannot become a generation."""
        with pytest.raises(ConfigurationError) as raised:
            self.build(text, previous)
        return str(raised.value)

    def log(self) -> str:
        """What was logged so far."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """Let go of all that was built."""
        for generation in self._built:
            generation.retire(None)


def service(
    accept: object, name: str = "one", more: str = "", *, connect: str = "connect = 127.0.0.1:9\n"
) -> str:
    """A section whose target nobody is at, unless it is told."""
    return f"[{name}]\naccept = {accept}\n{connect}{more}"


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
