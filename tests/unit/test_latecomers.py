"""A listening socket that is about to be closed: who has connected can be accepted, and nobody else comes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.latecomers import PATIENCE, Arrivals, turn_away

HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])


@contextlib.contextmanager
def listening(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::") as sock:
        sock.settimeout(20)
        yield sock


def reach(server: socket.socket, timeout: float = 20) -> socket.socket:
    """A client."""
    host, port = server.getsockname()[:2]
    return socket.create_connection(("127.0.0.1" if host == "::" else host, port), timeout)


@HOSTS
def test_nobody_connects_any_more(host: str) -> None:
    with listening(host) as server:
        turn_away(server)
        with pytest.raises(TimeoutError):
            reach(server, 0.2)


@HOSTS
def test_who_waits_is_accepted_and_can_speak(host: str) -> None:
    with listening(host) as server, reach(server) as client:
        turn_away(server)
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"request")
            assert accepted.recv(100) == b"request"
            accepted.sendall(b"reply")
            assert client.recv(100) == b"reply"


def test_it_counts_for_all_who_share_the_socket() -> None:
    with listening("127.0.0.1") as server, socket.socket(fileno=os.dup(server.fileno())) as other:
        turn_away(server)
        server.close()
        with pytest.raises(TimeoutError):
            reach(other, 0.2)


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_who_had_begun_to_connect_is_expected_until_he_is_there(host: str) -> None:
    with listening(host) as server:
        # So the kernel holds the handshake open until the client speaks (tcp(7)).
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
        with reach(server) as client:
            turn_away(server)
            arrivals = Arrivals([server.getsockname()[1]])
            assert arrivals.expected()
            client.sendall(b"request")
            with server.accept()[0]:
                assert not arrivals.expected()


def test_nobody_is_expected_for_longer_than_patience_lasts() -> None:
    with listening("127.0.0.1") as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
        with reach(server):
            arrivals = Arrivals([server.getsockname()[1]])
            time.sleep(PATIENCE)
            assert not arrivals.expected()


def test_nobody_is_expected_where_nobody_connects() -> None:
    with listening("127.0.0.1") as server, reach(server):
        assert not Arrivals([server.getsockname()[1]]).expected()
    assert not Arrivals([]).expected()


def test_a_unix_socket_and_a_closed_one_are_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        turn_away(server)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
    turn_away(server)
