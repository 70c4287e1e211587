"""What a configuration needs of the descriptor limit, and when that is too low."""

from __future__ import annotations

import resource

import pytest

from culvert import config
from culvert.descriptors import OWN, PER_SERVICE, Demand, DescriptorLimit

from .forked import in_child

CERT = "cert = server.pem\n"


def demand(text: str) -> Demand:
    read = config.loads(text, "test.conf")
    return Demand.of(read.options, read.services)


def service(name: str, more: str = "", sink: str = "connect = 1") -> str:
    return f"[{name}]\naccept = 127.0.0.1:0\n{sink}\n{CERT}{more}"


def test_without_a_limit_on_connections_nothing_is_known() -> None:
    found = demand(service("a") + service("b", "maxConnections = 9\n"))
    assert found.most is None
    assert found.shortage(1) is None


@pytest.mark.parametrize(
    ("text", "most", "line"),
    [
        ("maxConnections = 50\n" + service("a"), 50, 1),
        ("maxConnections = 50\n" + service("a", "maxConnections = 20\n"), 20, 6),
        ("maxConnections = 50\n" + service("a", "maxConnections = 20\n") + service("b"), 50, 1),
        (service("a", "maxConnections = 20\n") + service("b", "maxConnections = 30\n"), 50, 5),
    ],
)
def test_the_lowest_bound_counts(text: str, most: int, line: int) -> None:
    found = demand(text)
    assert found.most == most
    assert found.location is not None
    assert found.location.line == line


def test_a_connection_has_two_and_one_to_a_program_three() -> None:
    text = "maxConnections = 1000\n"
    assert demand(text + service("a")).each == 2
    assert demand(text + service("a") + service("b", sink="exec = /bin/cat")).each == 3


def test_the_warning_says_what_is_needed_and_what_to_do() -> None:
    found = demand("maxConnections = 1000\n" + service("a") + service("b"))
    besides = OWN + 2 * PER_SERVICE
    needed = 2000 + besides
    assert found.shortage(needed) is None
    shortage = found.shortage(needed - 1)
    assert str(shortage) == (
        'test.conf:1: "maxConnections = 1000": "maxConnections" lets in 1000 clients, for which a process '
        f"may need {needed} descriptors (2 for each, and {besides} besides), and the limit is {needed - 1} "
        '(raise it by LimitNOFILE= of a systemd unit or by "ulimit -Hn", or lower "maxConnections")'
    )


def test_no_limit_is_enough() -> None:
    assert demand("maxConnections = 2147483647\n" + service("a")).shortage(resource.RLIM_INFINITY) is None


def test_room() -> None:
    found = demand(service("a"))
    assert found.room(2 * 100 + found.besides) == 100
    assert found.room(10) == 0


def test_the_soft_limit_becomes_the_hard_one_and_a_program_gets_its_own_back() -> None:
    def raise_it() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
        limit = DescriptorLimit()
        assert (limit.first, limit.now) == (100, 200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, 200)
        with limit.lowered():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100, 200)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, 200)
        limit.lower()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100, 200)

    assert in_child(raise_it) == (0, "")
