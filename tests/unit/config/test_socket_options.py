"""`socket = a|l|r:NAME=VALUE`."""

from __future__ import annotations

import socket

import pytest

from culvert.config.model import SocketOption
from culvert.config.socket_options import SOCKET_OPTIONS, socket_option
from culvert.config.values import BadValue


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("l:TCP_NODELAY=1", SocketOption("l", "TCP_NODELAY", 1)),
        ("R:tcp_nodelay = no", SocketOption("r", "TCP_NODELAY", 0)),
        ("a:SO_RCVBUF=65536", SocketOption("a", "SO_RCVBUF", 65536)),
        ("l:SO_LINGER=1:60", SocketOption("l", "SO_LINGER", (1, 60))),
        ("l:SO_LINGER=no", SocketOption("l", "SO_LINGER", (0, 0))),
        ("r:SO_SNDTIMEO=5", SocketOption("r", "SO_SNDTIMEO", (5, 0))),
        ("r:SO_SNDTIMEO=5:999999", SocketOption("r", "SO_SNDTIMEO", (5, 999999))),
        ("a:SO_BINDTODEVICE=lo", SocketOption("a", "SO_BINDTODEVICE", "lo")),
    ],
)
def test_accepted(text: str, option: SocketOption) -> None:
    assert socket_option(text) == option


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "x:SO_DEBUG=1",
        "a:SO_DEBUG",
        "a:SO_NOTHING=1",
        "a:SO_DEBUG=2",
        "a:IP_TOS=0x10",
        "a:SO_LINGER=",
        "a:SO_LINGER=1:x",
        "a:SO_RCVTIMEO=1:1000000",
        "a:SO_BINDTODEVICE=",
        "a:SO_BINDTODEVICE=sixteen-letters0",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(BadValue):
        socket_option(text)


def test_every_name_is_one_of_the_system() -> None:
    # Python's socket module leaves these out; socket(7) and ip(7) have them.
    missing = {"SO_BINDTODEVICE", "SO_RCVTIMEO", "SO_SNDTIMEO", "IP_FREEBIND"}
    assert [name for name in SOCKET_OPTIONS if not hasattr(socket, name) and name not in missing] == []
