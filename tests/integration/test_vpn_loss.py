"""One TCP flow over a link that loses packets, through a VPN over TLS and over DTLS, in user-mode Linux."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.uml import machine
from bench.vpn import loss

from .certificates import Certificates
from .daemon import needs_root
from .harness import require

pytestmark = [needs_root, pytest.mark.timeout(400)]


def test_a_flow_over_datagrams_is_quicker_where_packets_are_lost(
    certificates: Certificates, record_property: Callable[[str, object], None]
) -> None:
    for program in (*machine.PROGRAMS, *loss.PROGRAMS):
        require(program)
    records = machine.boot(
        "bench.vpn.loss",
        {
            "certificate": str(certificates.server.bundle),
            "roads": list(loss.TRANSPORTS),
            "rounds": 1,
            "seconds": 8,
            "delay": 20,
            "loss": 2,
            "together": True,
        },
        seconds=300,
        modules=loss.NEEDED,
    )
    rates = {record["road"]: record["rate"] for record in records}
    times = rates["dtls"] / rates["tls"]
    record_property(
        "figure",
        f"one TCP flow, 40 ms and 2 % loss: {rates['tls']:.2f} MB/s over TLS, {rates['dtls']:.2f} MB/s over "
        f"DTLS, {times:.1f} times as much",
    )
    # One flow of a few seconds goes by the luck of its first losses: `bench.vpn.loss` takes medians.
    assert times > 1.2
