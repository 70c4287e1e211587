"""A VPN over DTLS, between hosts in network namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .vpn_world import VpnWorld, running

SERVER = """\
transport = dtls
tunAddress = 10.88.0.1/24
tunAddress = fd88::1/64
tunPool = 10.88.0.0/24
tunPool = fd88::/64
"""
CLIENT = "transport = dtls\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VpnWorld]:
    made = VpnWorld(tmp_path_factory.mktemp("vpn"))
    try:
        yield made
    finally:
        made.close()


def test_packets_go_both_ways(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server, client):
        client.await_log("over DTLS")
        (four,) = [one for one in world.addresses("alpha", "cvc0") if ":" not in one]
        assert world.pings("alpha", "10.88.0.1")
        assert world.pings("alpha", "fd88::1")
        assert world.pings("server", four)
        sent, received = world.transfer("alpha", "server", "10.88.0.1", 20_000_000)
        assert sent == received
        sent, received = world.transfer("server", "alpha", four, 20_000_000)
        assert sent == received
