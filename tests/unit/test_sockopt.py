"""Socket options: every name that a configuration may use is set on a real socket, and is in force there."""

from __future__ import annotations

import socket
import struct

import pytest

from culvert import sockopt
from culvert.config.socket_options import SOCKET_OPTIONS, socket_option

from . import streams

FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
VALUES = {"SO_LINGER": "yes:3", "SO_BINDTODEVICE": "lo"}
TIMES = {"SO_RCVTIMEO": "2:500000", "SO_SNDTIMEO": "2:500000"}
PRIVILEGED = {"SO_DEBUG", "SO_BINDTODEVICE"}
SETTABLE = sorted(SOCKET_OPTIONS.keys() - {"SO_SNDLOWAT"})
"""All but the one that Linux lets nobody change (socket(7))."""


def written(name: str, target: str = "l") -> str:
    return f"{target}:{name}={(VALUES | TIMES).get(name, '1')}"


@pytest.mark.parametrize("name", SETTABLE)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_can_be_set_or_is_left_out(name: str, family: socket.AddressFamily) -> None:
    settings = sockopt.settings([socket_option(written(name))], "l", family)
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sockopt.apply(sock, settings)
        except PermissionError:
            assert name in PRIVILEGED
            return
        for level, number, value in settings:
            assert sock.getsockopt(level, number, 64), (name, value)


def test_an_option_stands_for_its_own_target_only() -> None:
    options = [socket_option(f"{target}:SO_KEEPALIVE=yes") for target in "al"]
    assert len(sockopt.settings(options, "a", socket.AF_INET)) == 1
    assert len(sockopt.settings(options, "l", socket.AF_INET)) == 1
    assert sockopt.settings(options, "r", socket.AF_INET) == ()


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("SO_LINGER", FAMILIES),
        ("SO_KEEPALIVE", (socket.AF_INET, socket.AF_INET6)),
        ("TCP_NODELAY", (socket.AF_INET, socket.AF_INET6)),
        ("IP_TOS", (socket.AF_INET, socket.AF_INET6)),
        ("IPV6_V6ONLY", (socket.AF_INET6,)),
    ],
)
def test_an_option_without_meaning_for_a_family_is_left_out(
    name: str, families: tuple[socket.AddressFamily, ...]
) -> None:
    option = socket_option(written(name))
    assert tuple(f for f in FAMILIES if sockopt.settings([option], "l", f)) == families


def test_values_arrive_as_they_were_written() -> None:
    lines = ["l:SO_LINGER=yes:7", "l:SO_RCVTIMEO=2:500000", "l:TCP_KEEPIDLE=42", "l:TCP_NODELAY=no"]
    settings = sockopt.settings([socket_option(line) for line in lines], "l", socket.AF_INET)
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockopt.apply(sock, settings)
        assert struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 7)
        seconds, microseconds = struct.unpack(
            "ll", sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16)
        )
        assert seconds == 2
        assert abs(microseconds - 500000) < 10000, "the kernel counts in its own ticks"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 42
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


def test_what_the_kernel_refuses_is_an_error() -> None:
    settings = sockopt.settings([socket_option("l:SO_BINDTODEVICE=nosuchinterface")], "l", socket.AF_INET)
    with socket.socket() as sock, pytest.raises(OSError, match=r"No such device|not permitted"):
        sockopt.apply(sock, settings)


def test_a_reset_on_close_is_one() -> None:
    one, other = streams.tcp_pair()
    with streams.closing(one, other):
        other.setblocking(True)
        sockopt.reset_on_close(one)
        one.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)


def test_a_unix_socket_that_is_to_reset_just_closes() -> None:
    one, other = socket.socketpair()
    with streams.closing(one, other):
        sockopt.reset_on_close(one)
        one.close()
        assert other.recv(1) == b""
