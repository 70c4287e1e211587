"""Networks and PROXY headers: how they are written, and what does not go together."""

from __future__ import annotations

import ipaddress

import pytest

from culvert import config
from culvert.config import Sources

from .reading import CLIENT, SERVER, errors, findings, service

UNIX = "accept = /run/s\nconnect = 2\ncert = server.pem\n"


def named(*networks: str, unix: bool = False) -> Sources:
    return Sources(tuple(ipaddress.ip_network(network) for network in networks), unix)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", Sources()),
        ("allowFrom = 192.0.2.1", named("192.0.2.1/32")),
        ("allowFrom = 10.0.0.0/8, 2001:db8::/32", named("10.0.0.0/8", "2001:db8::/32")),
        ("allowFrom = 10.0.0.0/8\nallowFrom = 10.0.0.0/8,::1", named("10.0.0.0/8", "::1/128")),
        ("allowFrom = ::ffff:10.0.0.0/104", named("10.0.0.0/8")),
        ("allowFrom = UNIX, 0.0.0.0/0", named("0.0.0.0/0", unix=True)),
    ],
)
def test_networks(lines: str, expected: Sources) -> None:
    assert service(SERVER + lines).access.allow == expected


def test_lines_above_the_services_count_for_all_of_them() -> None:
    text = f"denyFrom = 10.0.0.0/8\n[a]\n{SERVER}denyFrom = 192.0.2.0/24\n"
    (found,) = config.loads(text, "x").services
    assert found.access.deny == named("10.0.0.0/8", "192.0.2.0/24")


@pytest.mark.parametrize("option", ["allowFrom", "denyFrom", "trustProxy"])
@pytest.mark.parametrize(
    "value",
    ["", "localhost", "10.0.0.0/33", "10.0.0", "10.0.0.1/8", "fe80::1%eth0", "10.0.0.0/255.0.0.0", "::1,"],
)
def test_what_is_no_network(option: str, value: str) -> None:
    assert any(f'"{option}" takes' in error for error in errors(f"[s]\n{SERVER}{option} = {value}\n"))


def test_proxies_are_no_unix_sockets() -> None:
    assert errors(f"[s]\n{SERVER}trustProxy = unix\n")


@pytest.mark.parametrize(
    ("lines", "version"),
    [("", None), ("proxyProtocol = v1", 1), ("proxyProtocol = V2", 2), ("protocol = proxy", 1)],
)
def test_headers_that_are_sent(lines: str, version: int | None) -> None:
    assert service(SERVER + lines).proxy.send == version


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (SERVER + "acceptProxy = yes", 'needs "trustProxy"'),
        (CLIENT + "acceptProxy = yes", 'needs "trustProxy"'),
        (
            SERVER + "acceptProxy = yes\ntrustProxy = 10.0.0.1\nident = joe",
            '"ident" cannot go with "acceptProxy"',
        ),
        (UNIX + "ident = joe", '"ident" needs clients of TCP'),
        (UNIX + "allowFrom = 10.0.0.0/8", '"allowFrom" lets nobody in'),
        (SERVER + "protocol = proxy\nproxyProtocol = v2", "leave out one of the two"),
        (
            SERVER + "protocol = socks\nproxyProtocol = v1",
            '"proxyProtocol" cannot go with "protocol = socks"',
        ),
        (
            "accept = 1\nexec = /bin/cat\ncert = x\nproxyProtocol = v1",
            '"proxyProtocol" cannot go with "exec"',
        ),
        ("accept = 1\nexec = /bin/cat\ncert = x\nprotocol = proxy", '"protocol" cannot go with "exec"'),
        (SERVER + "proxyProtocol = 1", '"proxyProtocol" takes v1 or v2'),
    ],
)
def test_what_cannot_be(text: str, error: str) -> None:
    (found,) = errors(f"[s]\n{text}\n")
    assert error in found


def test_a_program_of_another_service_gets_no_header_either() -> None:
    primary = "[a]\naccept = 1\nexec = /bin/cat\ncert = x\n"
    (found,) = errors(f"{primary}[b]\nsni = a:b.example.com\ncert = y\nproxyProtocol = v2\n")
    assert '"proxyProtocol" cannot go with the "exec" of service [a]' in found


def test_a_header_before_the_server_name_is_that_of_the_service_that_accepts() -> None:
    text = f"[a]\n{SERVER}protocol = imap\n[b]\nsni = a:b.example.com\ncert = y\nproxyProtocol = v1\n"
    (found,) = errors(text)
    assert found.startswith('9: "proxyProtocol" belongs to service [a]')


@pytest.mark.parametrize(("own", "expected"), [("", 2), ("proxyProtocol = v1", 1), ("connect = 3", None)])
def test_the_target_of_another_service_gets_the_header_that_it_expects(
    own: str, expected: int | None
) -> None:
    text = f"[a]\n{SERVER}proxyProtocol = v2\n[b]\nsni = a:b.example.com\ncert = y\n{own}\n"
    assert [one.proxy.send for one in config.loads(text, "x").services] == [2, expected]


@pytest.mark.parametrize(
    ("primary", "check"),
    [
        (SERVER + "acceptProxy = yes\ntrustProxy = ::1", "ident = joe"),
        (UNIX, "ident = joe"),
        (UNIX, "allowFrom = ::1"),
    ],
)
def test_checks_that_every_client_of_another_service_fails(primary: str, check: str) -> None:
    (found,) = errors(f"[a]\n{primary}\n[b]\nsni = a:b.example.com\ncert = y\n{check}\n")
    assert "lets nobody in: the clients of service [a] have no" in found


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (SERVER + "trustProxy = 10.0.0.1", '"trustProxy" has no effect without "acceptProxy = yes"'),
        (UNIX + "acceptProxy = yes\ntrustProxy = ::1", '"trustProxy" has no effect on a Unix socket'),
        (UNIX + "libwrap = yes", '"libwrap" has no effect on a Unix socket'),
        ("connect = 1\nexec = /bin/cat\ncert = x\ndenyFrom = ::1", '"denyFrom" has no effect here'),
        (UNIX + "[b]\nsni = s:b.example.com\ncert = y\nlibwrap = yes", '"libwrap" has no effect here'),
        (UNIX + "[b]\nsni = s:b.example\ncert = y\nmaxConnectionsPerIP = 1", '"maxConnectionsPerIP" has no'),
        (SERVER + "protocol = smtp\nproxyProtocol = v2", '"proxyProtocol = v2" tells nothing of TLS'),
    ],
)
def test_what_has_no_effect(text: str, warning: str) -> None:
    assert any(warning in found for found in findings(f"[s]\n{text}\n"))


@pytest.mark.parametrize(
    "text",
    [
        UNIX + "acceptProxy = yes\nallowFrom = 10.0.0.0/8",
        UNIX + "allowFrom = unix",
        UNIX + "denyFrom = 10.0.0.0/8",
        SERVER + "acceptProxy = yes\ntrustProxy = 10.0.0.1\nproxyProtocol = v2\nlibwrap = yes",
        SERVER + "ident = joe",
        SERVER + "protocol = smtp\nproxyProtocol = v1",
    ],
)
def test_what_is_in_order(text: str) -> None:
    assert findings(f"[s]\n{text}\n") == []
