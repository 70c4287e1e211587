"""Addresses as they are written and as a log shows them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from culvert.address import HostPort, UnixPath, show


@pytest.mark.parametrize(
    ("sockaddr", "shown"),
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "::1:80"),
        (("fe80::1%eth0", 443, 0, 2), "fe80::1%eth0:443"),
        ("/run/a.sock", "/run/a.sock"),
        ("", "unix socket"),
        (b"", "unix socket"),
        (b"\0abstract", "\0abstract"),
        (b"\xff", "\ufffd"),
        (None, "None"),
    ],
)
def test_a_socket_address_is_shown_as_stunnel_shows_it(sockaddr: object, shown: str) -> None:
    assert show(sockaddr) == shown


def test_what_the_system_calls_a_peer_without_a_name_is_shown(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        accepted, address = server.accept()
        accepted.close()
        assert show(address) == "unix socket"
        assert show(client.getpeername()) == str(tmp_path / "s")


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (HostPort("localhost", 80), "localhost:80"),
        (HostPort(None, 80), "80"),
        (HostPort(None, "https"), "https"),
        (HostPort("::1", 80), "::1:80"),
        (UnixPath("/run/a.sock"), "/run/a.sock"),
    ],
)
def test_an_address_is_written_as_the_configuration_has_it(address: HostPort | UnixPath, text: str) -> None:
    assert str(address) == text
