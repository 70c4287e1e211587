"""Limits on connections: how they are written, whose they are, and which of them do nothing."""

from __future__ import annotations

import pytest

from culvert import config
from culvert.config.model import AcceptRate, ConnectionLimits

from .reading import PATH, SERVER, errors, findings

OTHER = "accept = 3\nconnect = 4\ncert = server.pem\n"
NONE = ConnectionLimits()


def test_one_before_the_first_section_is_the_daemons_and_no_services() -> None:
    read = config.loads(f"maxConnections = 9\n[a]\n{SERVER}[b]\n{OTHER}", PATH)
    assert read.options.limits == ConnectionLimits(9)
    assert [service.limits for service in read.services] == [NONE, NONE]


def test_one_in_a_section_is_that_services() -> None:
    text = f"[a]\n{SERVER}maxConnectionsPerIP = 2\nmaxHandshakes = 3\nacceptRate = 5:50\n[b]\n{OTHER}"
    read = config.loads(text, PATH)
    assert not read.options.limits
    assert read.services[0].limits == ConnectionLimits(None, 2, 3, AcceptRate(5, 50))
    assert read.services[1].limits == NONE


def test_the_burst_is_a_seconds_worth_unless_it_is_set() -> None:
    read = config.loads(f"acceptRate = 7\n[a]\n{SERVER}", PATH)
    assert read.options.limits.rate == AcceptRate(7, 7)


@pytest.mark.parametrize("name", ["maxConnections", "maxConnectionsPerIP", "maxHandshakes"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "", "99999999999"])
def test_a_number_that_limits_nothing(name: str, value: str) -> None:
    [error] = errors(f"{name} = {value}\n[a]\n{SERVER}")
    assert error.startswith(f'1: "{name}" takes a number of connections from 1 to 2147483647, not ')


@pytest.mark.parametrize("value", ["0", "0:5", "5:0", "5:", ":5", "5:5:5", "a", "5/s", ""])
def test_a_rate_that_is_none(value: str) -> None:
    [error] = errors(f"acceptRate = {value}\n[a]\n{SERVER}")
    assert error.startswith(
        '1: "acceptRate" takes RATE or RATE:BURST, numbers of connections, 1 or more, not '
    )


@pytest.mark.parametrize("name", ["maxConnectionsPerIP", "maxHandshakes"])
def test_a_part_that_is_not_below_the_whole(name: str) -> None:
    said = f'"{name} = 5" has no effect: it is not below "maxConnections = 5"'
    assert findings(f"maxConnections = 5\n{name} = 5\n[a]\n{SERVER}") == [f"2: {said}"]
    assert findings(f"[a]\n{SERVER}maxConnections = 5\n{name} = 5\n") == [f"6: {said}"]
    assert findings(f"[a]\n{SERVER}maxConnections = 5\n{name} = 4\n") == []


def test_a_service_that_the_daemon_leaves_no_room_for() -> None:
    assert findings(f"maxConnections = 5\n[a]\n{SERVER}maxConnections = 6\n") == [
        '6: "maxConnections = 6" has no effect: there may be 5 in the whole daemon'
    ]
    assert findings(f"maxConnections = 5\n[a]\n{SERVER}maxConnections = 4\n") == []


def test_a_service_without_clients() -> None:
    text = "[a]\nclient = yes\nexec = /bin/a\nconnect = 2\nCAfile = c\nverifyChain = yes\ncheckHost = h\n"
    assert findings(f"{text}maxConnections = 1\nacceptRate = 1\n") == [
        f'{line}: "{name}" has no effect without "accept": there are no clients'
        for line, name in ((8, "maxConnections"), (9, "acceptRate"))
    ]


def test_clients_without_an_address() -> None:
    text = "[a]\naccept = /run/a\nconnect = 2\ncert = server.pem\nmaxConnectionsPerIP = 1\n"
    assert findings(text) == [
        '5: "maxConnectionsPerIP" has no effect on a Unix socket, whose clients have no address'
    ]


def test_a_service_by_server_name_has_clients() -> None:
    text = f"[a]\n{SERVER}[b]\nsni = a:b.example\ncert = server.pem\nmaxConnections = 1\n"
    assert findings(text) == []


def test_in_inetd_mode_there_are_no_clients() -> None:
    assert findings("connect = 2\ncert = server.pem\nmaxConnections = 1\n") == [
        '3: "maxConnections" has no effect without "accept": there are no clients'
    ]
