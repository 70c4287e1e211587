"""The tap on the wire: it passes everything on, and keeps what crossed."""

from __future__ import annotations

import socket
import threading

import pytest

from culvert.cli.demo.tap import CAPTURE_LIMIT, Tap, last_application_record

HANDSHAKE = b"\x16\x03\x03\x00\x02ab"
FIRST = b"\x17\x03\x03\x00\x03one"
SECOND = b"\x17\x03\x03\x00\x03two"
ALERT = b"\x15\x03\x03\x00\x02\x01\x00"


@pytest.mark.parametrize(
    ("stream", "record"),
    [
        (b"", b""),
        (HANDSHAKE, b""),
        (HANDSHAKE + FIRST + SECOND, SECOND),
        (FIRST + ALERT, FIRST),
        (FIRST + SECOND[:4], FIRST),
        (FIRST + SECOND[:6], SECOND[:6]),
    ],
)
def test_the_last_record_of_application_data(stream: bytes, record: bytes) -> None:
    assert last_application_record(stream) == record


def _serve_reversed(listener: socket.socket) -> None:
    """Answer one connection, once it has ended its side, with its bytes in reverse."""
    connection, _ = listener.accept()
    with connection:
        received = b"".join(iter(lambda: connection.recv(4096), b""))
        connection.sendall(received[::-1])


@pytest.mark.parametrize("size", [11, 3 * CAPTURE_LIMIT])
def test_both_directions_pass_and_are_kept_up_to_the_limit(size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    with socket.create_server(("127.0.0.1", 0)) as listener, Tap(listener.getsockname()[1]) as tap:
        server = threading.Thread(target=_serve_reversed, args=(listener,))
        server.start()
        with socket.create_connection(("127.0.0.1", tap.port), 10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        server.join(10)
        assert answer == data[::-1]
        assert tap.latest().to_server == data[:CAPTURE_LIMIT]
        assert tap.latest().to_client == data[::-1][:CAPTURE_LIMIT]


def test_a_snapshot_does_not_grow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Tap(listener.getsockname()[1]) as tap:
        assert tap.latest().to_server == b""
        with socket.create_connection(("127.0.0.1", tap.port), 10) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"one")
                assert server.recv(3) == b"one"
                taken = tap.latest().snapshot()
                client.sendall(b"two")
                assert server.recv(3) == b"two"
        assert (bytes(taken.to_server), bytes(tap.latest().to_server)) == (b"one", b"onetwo")
