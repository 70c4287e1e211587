"""Addresses in every form that the reference knows."""

from __future__ import annotations

import pytest

from culvert.address import Address, HostPort, UnixPath
from culvert.config.addresses import ACCEPT, CONNECT, HOST, HOST_OR_NONE, IP
from culvert.config.values import BadValue


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("443", HostPort(None, 443)),
        ("https", HostPort(None, "https")),
        ("*:443", HostPort(None, 443)),
        ("0", HostPort(None, 0)),
        ("127.0.0.1:65535", HostPort("127.0.0.1", 65535)),
        ("localhost:imaps", HostPort("localhost", "imaps")),
        ("bücher.example:1", HostPort("bücher.example", 1)),
        (":::443", HostPort("::", 443)),
        ("::1:443", HostPort("::1", 443)),
        ("[::1]:443", HostPort("::1", 443)),
        ("[fe80::1%eth0]:443", HostPort("fe80::1%eth0", 443)),
        ("/run/a b.sock", UnixPath("/run/a b.sock")),
        ("/" + "x" * 106, UnixPath("/" + "x" * 106)),
    ],
)
def test_accept(text: str, address: Address) -> None:
    assert ACCEPT.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":443",
        "host:",
        "65536",
        "-1",
        "٤٤٣",
        "1 2",
        "ho st:1",
        "256.0.0.1:1",
        "010.0.0.1:1",
        "::g:1",
        "[::1]",
        "[::1:1",
        "[localhost]:1",
        "[127.0.0.1]:1",
        "a/b:1",
        "http://host:1",
        "x" * 254 + ":1",
        "/" + "x" * 107,
        "/" + "é" * 54,
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(BadValue):
        ACCEPT.parse(text)


@pytest.mark.parametrize("text", ["0", "*:443", "localhost:0"])
def test_nothing_to_connect_to(text: str) -> None:
    with pytest.raises(BadValue):
        CONNECT.parse(text)


def test_host() -> None:
    assert HOST.parse("::1") == "::1"
    assert HOST.parse(".example.com") == ".example.com"
    assert HOST_OR_NONE.parse("") == ""
    assert IP.parse("192.0.2.1") == "192.0.2.1"
    for text in ("*.example.com", "a b", ""):
        with pytest.raises(BadValue):
            HOST.parse(text)
    for text in ("localhost", "fe80::1%eth0"):
        with pytest.raises(BadValue):
            IP.parse(text)
