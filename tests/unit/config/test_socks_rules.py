"""How `socksAllow` is written."""

from __future__ import annotations

import pytest

from culvert.config.model import SocksKind
from culvert.config.socks_rules import SOCKS_RULE
from culvert.config.values import BadValue

ALL = (0, 65535)


@pytest.mark.parametrize(
    ("text", "kind", "value", "ports"),
    [
        ("Name.Example.com", SocksKind.HOST, "name.example.com", ALL),
        ("localhost:5432", SocksKind.HOST, "localhost", (5432, 5432)),
        ("*.example.com:1-1023", SocksKind.SUFFIX, "example.com", (1, 1023)),
        ("*", SocksKind.ANY, "", ALL),
        ("*:443", SocksKind.ANY, "", (443, 443)),
        ("10.0.0.0/8", SocksKind.NETWORK, "10.0.0.0/8", ALL),
        ("10.0.0.0/8:22", SocksKind.NETWORK, "10.0.0.0/8", (22, 22)),
        ("127.0.0.1:80", SocksKind.NETWORK, "127.0.0.1/32", (80, 80)),
        ("2001:db8::/32", SocksKind.NETWORK, "2001:db8::/32", ALL),
        ("[2001:db8::/32]:80", SocksKind.NETWORK, "2001:db8::/32", (80, 80)),
        ("[::1]", SocksKind.NETWORK, "::1/128", ALL),
        ("::1", SocksKind.NETWORK, "::1/128", ALL),
    ],
)
def test_good(text: str, kind: SocksKind, value: str, ports: tuple[int, int]) -> None:
    rule = SOCKS_RULE.parse(text)
    assert (rule.kind, rule.value, rule.ports, str(rule)) == (kind, value, ports, f"socksAllow = {text}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:9-5",
        "host:http",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/x",
        "256.0.0.1",
        "10.0.0",
        "*.10",
        "**",
        "a.*.b",
        "*.",
        "host/8",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "[::1",
        "[::1]80",
        "[host]:80",
        "2001:db8::/129",
        "-host",
        "ho st",
    ],
)
def test_bad(text: str) -> None:
    with pytest.raises(BadValue):
        SOCKS_RULE.parse(text)


@pytest.mark.parametrize("text", ["a.example, b.example", "a.example b.example", "10.0.0.0/8,::1"])
def test_each_target_has_its_line(text: str) -> None:
    with pytest.raises(BadValue) as caught:
        SOCKS_RULE.parse(text)
    assert caught.value.hint == "a line of its own for each"
