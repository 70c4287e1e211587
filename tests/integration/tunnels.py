"""One daemon with a tunnel of every kind, and both ends of a connection through any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .certificates import Certificates
from .harness import Culvert
from .peers import (
    VERSIONS,
    Listener,
    Peer,
    Peers,
    PlainPeer,
    TlsPeer,
    client_context,
    server_context,
)


@dataclass(frozen=True)
class Pair:
    """Both ends of one connection through a tunnel."""

    plain: PlainPeer
    tls: TlsPeer

    def ends(self, first: str) -> tuple[Peer, Peer]:
        """The end that `first` names ("plain" or "tls"), then the other one."""
        return (self.plain, self.tls) if first == "plain" else (self.tls, self.plain)

    def close(self) -> None:
        """Closes both ends."""
        self.plain.close()
        self.tls.close()


class Tunnels:
    """A daemon with a server and a client service for each TLS version in each of `variants`.

    `variants` maps a name to service options. The test plays all four peers; `open` gives it both ends.
    """

    def __init__(
        self,
        folder: Path,
        certificates: Certificates,
        variants: Mapping[str, str],
        environment: Mapping[str, str],
        receive_buffer: int | None = None,
    ) -> None:
        self._certificates = certificates
        self._receive_buffer = receive_buffer
        self._peers = Peers()
        self._targets: dict[tuple[str, str, str], Listener] = {}
        sections = []
        for variant, options in variants.items():
            for role in ("server", "client"):
                for version in VERSIONS:
                    target = self._peers.listen(receive_buffer=receive_buffer)
                    self._targets[variant, role, version] = target
                    sections.append(self._section(variant, role, version, options, target.port))
        self.daemon = Culvert(folder, "\n".join(sections), environment=environment)

    def _section(self, variant: str, role: str, version: str, options: str, port: int) -> str:
        credentials = f"cert = {self._certificates.server.cert}\nkey = {self._certificates.server.key}"
        if role == "client":
            credentials = "client = yes"
            if "CAfile" not in options:
                credentials += f"\nCAfile = {self._certificates.ca.cert}\nverifyChain = yes"
        return (
            f"[{variant}-{role}-{version}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
            f"sslVersion = {version}\n{credentials}\n{options}\n"
        )

    def target(self, role: str, version: str, variant: str = "default") -> Listener:
        """Where the daemon connects to for this tunnel."""
        return self._targets[variant, role, version]

    def open(
        self,
        role: str,
        version: str,
        variant: str = "default",
        *,
        with_last_flight: bytes = b"",
        and_end: bool = False,
    ) -> Pair:
        """A connection through a tunnel where the daemon has this role.

        `with_last_flight` is sent by the TLS peer in one write with the end of its handshake, and with
        `and_end` its close_notify too.
        """

        def last(peer: TlsPeer) -> bytes:
            return peer.seal(with_last_flight) + (peer.seal_end() if and_end else b"")

        target = self.target(role, version, variant)
        port = self.daemon.port(f"{variant}-{role}-{version}")
        outer = self._peers.dial(port, receive_buffer=self._receive_buffer)
        if role == "server":
            tls = TlsPeer(outer, client_context(version, trust=self._certificates.ca.cert), server=False)
            tls.handshake(last)
            return Pair(PlainPeer(target.accept()), tls)
        tls = TlsPeer(target.accept(), server_context(self._certificates.server, version), server=True)
        tls.handshake(last)
        return Pair(PlainPeer(outer), tls)

    def __enter__(self) -> Tunnels:
        self.daemon.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._peers.close()
        self.daemon.__exit__(kind, error, trace)
