"""The classic VPN: pppd over Culvert and over stunnel, in user-mode Linux, whose kernel has PPP.

One boot tells everything (classic_guest.py); each test looks at a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bench.uml import machine
from bench.vpn import classic, networks

from .certificates import Certificates
from .daemon import needs_root
from .harness import require

pytestmark = [needs_root, pytest.mark.timeout(400)]

SECONDS = 300
"""Six times what it takes on a machine that has nothing else to do."""

Seen = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def seen(certificates: Certificates) -> Seen:
    """What the guest reported under a name."""
    for program in (*machine.PROGRAMS, *classic.PROGRAMS, "stunnel4", "socat"):
        require(program)
    records = machine.boot(
        "integration.classic_guest",
        {"certificate": str(certificates.server.bundle)},
        seconds=SECONDS,
        modules=(*networks.MODULES, *classic.MODULES),
    )

    def find(what: str, **fields: str) -> dict[str, Any]:
        wanted = {"what": what, **fields}
        return next(record for record in records if wanted.items() <= record.items())

    return find


JOINED = dict.fromkeys(("there", "back", "full", "file_there", "file_back"), True)
"""Pings of both sizes that were answered, and files that arrived as they were."""


def test_the_networks_are_apart_without_a_tunnel(seen: Seen) -> None:
    assert not seen("apart")["reachable"]


@pytest.mark.parametrize("program", ["stunnel", "Culvert"])
def test_pppd_through_the_plain_port_joins_two_networks(seen: Seen, program: str) -> None:
    found = seen("classic", program=program)
    assert found == found | JOINED | {"ports": [5010]}


def test_what_a_ping_costs(seen: Seen, record_property: Callable[[str, object], None]) -> None:
    direct = seen("direct")["ping"]
    times = {program: seen("classic", program=program)["ping"] for program in ("stunnel", "Culvert")}
    ratio = times["Culvert"] / times["stunnel"]
    record_property(
        "figure",
        f"ping: {direct} ms direct, {times['stunnel']} ms by pppd over stunnel, {times['Culvert']} ms over "
        f"Culvert: {ratio:.2f} times stunnel's, {times['Culvert'] / direct:.0f} times the direct one",
    )
    assert min(times.values()) > direct


def test_a_client_service_that_runs_pppd_has_no_port(seen: Seen) -> None:
    found = seen("short")
    assert found == found | JOINED | {"ports": []}


def test_a_link_whose_far_end_has_died_comes_back_under_traffic(seen: Seen) -> None:
    assert seen("again")["seconds"] < 30
    found = seen("after")
    assert found == found | JOINED
