"""Rules on proxies: the HTTP proxy that a client goes through, and the SOCKS proxy that a server is."""

from __future__ import annotations

import pytest

from culvert import config
from culvert.address import HostPort

from .reading import PATH, errors, findings, service

CLIENT = "client = yes\naccept = 1\nconnect = 2\nCAfile = a\nverifyChain = yes\ncheckHost = a\n"
CONNECT = f"{CLIENT}protocol = connect\n"
SOCKS = "accept = 1\ncert = a.pem\nCAfile = a\nverifyChain = yes\nprotocol = socks\n"


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("db.example.com:5432", HostPort("db.example.com", 5432)),
        ("[::1]:5432", HostPort("::1", 5432)),
        ("10.0.0.1:1", HostPort("10.0.0.1", 1)),
    ],
)
def test_where_the_proxy_leads(host: str, target: HostPort) -> None:
    protocol = service(f"{CONNECT}protocolHost = {host}\n").protocol
    assert protocol is not None
    assert protocol.target == target


@pytest.mark.parametrize("host", ["db.example.com", "5432", "db.example.com:https", "/path", "a b:1", "::1"])
def test_where_the_proxy_leads_is_host_and_port(host: str) -> None:
    assert errors(f"[s]\n{CONNECT}protocolHost = {host}\n") == [
        f'9: "protocolHost" of "protocol = connect" takes HOST:PORT, the port as a number, not "{host}"'
    ]


def test_where_the_proxy_leads_must_be_said() -> None:
    assert errors(f"[s]\n{CONNECT}") == [
        '8: "protocol = connect" needs "protocolHost = HOST:PORT": where the proxy is to lead'
    ]


def test_other_protocols_have_no_target() -> None:
    protocol = service(
        "client = yes\naccept = 1\nconnect = 2\nprotocol = smtp\nprotocolHost = a.test\n"
    ).protocol
    assert protocol is not None
    assert protocol.target is None


@pytest.mark.parametrize("header", ["X-Tenant", "X Tenant: blue", ": blue"])
def test_a_header_line_has_a_name(header: str) -> None:
    text = f"[s]\n{CONNECT}protocolHost = a:1\nprotocolHeader = {header}\n"
    assert errors(text) == ['10: "protocolHeader" takes NAME: VALUE, not this value']


def test_ntlm_needs_an_account() -> None:
    text = f"[s]\n{CONNECT}protocolHost = a:1\nprotocolAuthentication = ntlm\n"
    assert errors(text) == [
        '10: "protocolAuthentication = ntlm" needs "protocolUsername"',
        '10: "protocolAuthentication = ntlm" needs "protocolPassword"',
    ]


def test_a_colon_cannot_stand_in_the_user_of_basic_authentication() -> None:
    text = f"[s]\n{CONNECT}protocolHost = a:1\nprotocolUsername = a:b\nprotocolPassword = c\n"
    assert errors(text) == ['10: "protocolUsername" holds no colon in basic authentication (RFC 7617, 2)']


def test_what_has_no_effect_in_basic_authentication() -> None:
    text = f"[s]\n{CONNECT}protocolHost = a:1\nprotocolPassword = c\nprotocolDomain = d\n"
    assert findings(text) == [
        '10: "protocolPassword" has no effect without "protocolUsername"',
        '11: "protocolDomain" has no effect without "protocolAuthentication = ntlm"',
    ]


def test_a_socks_server_needs_no_target() -> None:
    assert findings(f"[s]\n{SOCKS}") == []
    assert service(SOCKS).connect == ()


def test_a_socks_client_needs_one() -> None:
    assert "1: a service has two ends" in errors("[s]\nclient = yes\naccept = 1\nprotocol = socks\n")[0]


def test_a_socks_server_takes_no_program() -> None:
    found = errors("[s]\naccept = 1\nexec = /bin/cat\ncert = a\nprotocol = socks\nsocksAllow = a\n")
    assert '3: "exec" cannot go with "protocol = socks": each client names its own target' in found


def test_a_target_beside_socks_has_no_effect() -> None:
    assert findings(f"[s]\n{SOCKS}connect = 3\n") == [
        '7: "connect" has no effect beside "protocol = socks": each client names its own target'
    ]


def test_a_socks_server_for_everybody_is_a_warning() -> None:
    text = "[s]\naccept = 1\ncert = a.pem\nprotocol = socks\n"
    assert findings(text) == [
        "4: Service [s] lets anybody connect to anywhere through it: "
        'verify its clients, or name their targets by "socksAllow"'
    ]
    assert findings(f"{text}socksAllow = a\n") == []


def test_rules_without_a_socks_server_have_no_effect() -> None:
    assert findings(f"[s]\n{CONNECT}protocolHost = a:1\nsocksAllow = a\n") == [
        '10: "socksAllow" has no effect but in a server with "protocol = socks"'
    ]


@pytest.mark.parametrize("protocol", ["capwin", "capwinctrl"])
def test_what_nobody_published_is_refused(protocol: str) -> None:
    assert errors(f"[s]\nclient = yes\naccept = 1\nconnect = 2\nprotocol = {protocol}\n") == [
        f'5: "protocol = {protocol}" is not supported: how its application speaks is published nowhere'
    ]


def test_postgresql_servers_choose_its_protocol_by_alpn() -> None:
    server = "accept = 1\nconnect = 2\ncert = a.pem\nprotocol = pgsql\n"
    assert service(server).alpn == ("postgresql",)
    assert service(f"{server}alpn = other\n").alpn == ("other",)
    assert service("client = yes\naccept = 1\nconnect = 2\nprotocol = pgsql\n").alpn == ()


def test_a_service_by_name_needs_a_target_where_its_primary_has_none() -> None:
    text = f"[s]\n{SOCKS}[named]\nsni = s:a.test\ncert = a.pem\n"
    assert errors(text) == [
        "8: service [s] has no target to hand on, its clients name theirs: "
        'set "connect", "exec" or "protocol = socks" here as well'
    ]
    both = config.loads(f"{text}protocol = socks\nsocksAllow = a\n", PATH).services
    assert [one.name for one in both] == ["s", "named"]
