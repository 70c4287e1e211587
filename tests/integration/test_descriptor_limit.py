"""The descriptor limit: raised at start, given back to programs, and warned of where it is too low."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable

import pytest

from .certificates import Certificates
from .daemon import command
from .echo import echo_service, trusting
from .harness import Culvert, eventually, require
from .peers import Peers, read_all

Start = Callable[..., Culvert]

SOFT, HARD = 300, 1500
ULIMIT = "exec = /bin/sh\nexecArgs = sh -c ulimit${IFS}-Sn;ulimit${IFS}-Hn"
SHORTAGE = r'"maxConnections" lets in 1000 clients, .* may need 3068 descriptors .* the limit is 1500'


def limited() -> list[str]:
    """What runs a program under the limits."""
    return [require("prlimit"), f"--nofile={SOFT}:{HARD}"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("pty", ["", "pty = yes"])
def test_it_is_raised_here_and_not_for_programs(
    culvert: Start, certificates: Certificates, peers: Peers, workers: int, pty: str
) -> None:
    daemon = culvert(echo_service(certificates, sink=ULIMIT, more=pty), workers=workers, prefix=limited())
    for pid in daemon.tree():
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (HARD, HARD)
    tls = peers.tls(daemon.port("echo"), trusting(certificates.ca.cert))
    assert read_all(tls).split() == [b"%d" % SOFT, b"%d" % HARD]


def test_programs_have_their_own_where_more_is_open_than_they_may(
    culvert: Start, certificates: Certificates, peers: Peers
) -> None:
    """Then there is no room below theirs for what it takes to start one."""
    daemon = culvert(
        echo_service(certificates, sink=ULIMIT), workers=0, prefix=[require("prlimit"), "--nofile=40:1500"]
    )
    before = daemon.descriptors()
    silent = [peers.dial(daemon.port("echo")) for _ in range(60)]
    eventually(lambda: daemon.descriptors() >= before + len(silent), "all of them")
    tls = peers.tls(daemon.port("echo"), trusting(certificates.ca.cert))
    assert read_all(tls).split() == [b"40", b"1500"]


def test_one_that_is_too_low_is_warned_of_at_each_start_and_reload(
    culvert: Start, certificates: Certificates
) -> None:
    services = echo_service(certificates)
    daemon = culvert(services, options="maxConnections = 1000\n", prefix=limited())
    daemon.await_log(r"LOG4\[main\]: \S+culvert\.conf:6: .*" + SHORTAGE)
    mark = daemon.reload(services)
    daemon.await_log("Accepting new connections", since=mark)
    assert daemon.log.find(SHORTAGE, since=mark)


def test_without_a_limit_on_connections_the_log_says_how_many_it_is_enough_for(
    culvert: Start, certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), prefix=limited())
    daemon.await_log(r"LOG6\[main\]: A process may open 1500 descriptors, enough for 477 connections")


def test_a_check_warns_of_it(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates), options="maxConnections = 1000\n")
    checked = subprocess.run(
        [*limited(), *command("check", daemon.path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert "WARNING" in checked.stdout.upper()
    assert "lets in 1000 clients" in checked.stdout
    checked = subprocess.run(
        command("check", daemon.path), capture_output=True, text=True, timeout=30, check=True
    )
    assert "lets in" not in checked.stdout
