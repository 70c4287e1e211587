"""TLS servers that greet whoever finishes a handshake with them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from types import TracebackType

from OpenSSL import SSL

from .certificates import Leaf
from .peers import Listener, PlainPeer, TlsPeer, TruncatedError, dial, read_all, server_context


def greeting(port: int) -> bytes:
    """What a client service on this port brings, until the end; nothing where it is reset."""
    try:
        with dial(port) as sock:
            return read_all(PlainPeer(sock))
    except ConnectionResetError:
        return b""


class Greeters:
    """A server for each leaf, on `ports[name]`, that says `I am NAME` and ends the connection.

    `names` collects the server names that clients asked for.
    """

    def __init__(self, leaves: Mapping[str, Leaf], version: str | None = None) -> None:
        self._listeners = {name: Listener() for name in leaves}
        self.ports = {name: listener.port for name, listener in self._listeners.items()}
        self.names: list[str | None] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(name, server_context(leaf, version)), daemon=True)
            for name, leaf in leaves.items()
        ]

    def _serve(self, name: str, context: SSL.Context) -> None:
        listener = self._listeners[name]
        while not self._stopping.is_set():
            try:
                sock = listener.accept(timeout=0.2)
            except TimeoutError:
                continue
            with sock, contextlib.suppress(SSL.Error, OSError, TruncatedError):
                self._greet(TlsPeer(sock, context, server=True), name)

    def _greet(self, peer: TlsPeer, name: str) -> None:
        peer.handshake()
        asked = peer.engine.get_servername()
        self.names.append(asked.decode() if asked is not None else None)
        peer.send(f"I am {name}".encode())
        peer.end()
        read_all(peer)

    def __enter__(self) -> Greeters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for listener in self._listeners.values():
            listener.close()
