"""A tap on the wire: a small relay between the two ends of a tunnel that keeps what crosses it.

It proves to the demo's reader that what crosses is TLS and nothing else. Threads and blocking sockets do
for a handful of short connections; each is bounded by a time limit.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

CAPTURE_LIMIT = 1 << 16
"""Bytes kept of each direction of a connection; a handshake and one line need a tenth of it."""

_IDLE_LIMIT = 30.0
_CHUNK = 1 << 14
_RECORD_HEADER = 5
_APPLICATION_DATA = 0x17


@dataclass
class Crossing:
    """What one connection carried, as far as it was captured."""

    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)

    def snapshot(self) -> Crossing:
        """What was captured up to now, apart from what follows."""
        return Crossing(self.to_server[:], self.to_client[:])


def last_application_record(stream: bytes | bytearray) -> bytes:
    """The last record of application data in a direction's bytes (RFC 8446, 5.1); empty if there is none."""
    found = b""
    position = 0
    while position + _RECORD_HEADER <= len(stream):
        length = int.from_bytes(stream[position + 3 : position + _RECORD_HEADER], "big")
        end = position + _RECORD_HEADER + length
        if stream[position] == _APPLICATION_DATA:
            found = bytes(stream[position:end])
        position = end
    return found


class Tap:
    """Listens on a port of loopback and relays to another: start by `with`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.crossings: list[Crossing] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Tap:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the thread in accept(2); shutting down wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_IDLE_LIMIT)
        self._listener.close()

    def latest(self) -> Crossing:
        """The connection that came last; an empty one where none has come."""
        return self.crossings[-1] if self.crossings else Crossing()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            crossing = Crossing()
            self.crossings.append(crossing)
            threading.Thread(target=self._relay, args=(client, crossing), daemon=True).start()

    def _relay(self, client: socket.socket, crossing: Crossing) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(_IDLE_LIMIT)
            with socket.create_connection(("127.0.0.1", self._target), _IDLE_LIMIT) as server:
                back = threading.Thread(target=_pump, args=(server, client, crossing.to_client), daemon=True)
                back.start()
                _pump(client, server, crossing.to_server)
                back.join(_IDLE_LIMIT)


def _pump(source: socket.socket, sink: socket.socket, capture: bytearray) -> None:
    """Carry one direction to its end; an error on either side ends it like a FIN."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            capture += data[: CAPTURE_LIMIT - len(capture)]
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
