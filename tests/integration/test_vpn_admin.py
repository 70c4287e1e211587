"""What the admin endpoint, the commands and the log tell of a VPN's peers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .admin_client import Admin
from .chromium import Chromium
from .daemon import command, fixed_ports, run
from .harness import PATIENCE, Culvert, eventually, require
from .metrics_text import faults
from .vpn_world import OUTER, VpnWorld, running

SERVER = """\
transport = dtls
tunAddress = 10.87.0.1/24
tunPool = 10.87.0.0/24
tunClient = alpha: 10.87.0.10
tunClient = beta: 10.87.0.20
"""
OURS = "10.87.0.1"


class Watched(VpnWorld):
    """A server with an admin endpoint, and a client over each transport."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.admin = Admin(folder / "admin")
        self.daemon = self.server(SERVER, f"admin = {self.admin.at}\nlogFormat = json\n")
        self.alpha = self.client("alpha", "transport = dtls\n")
        self.beta = self.client("beta")

    def number(self, name: str, **labels: str) -> float:
        """One sample of the VPN's."""
        return self.admin.metric(f"culvert_vpn_{name}", service="vpn", **labels)

    def listed(self, address: str) -> dict[str, object]:
        """What /connections has of the peer with this address in the VPN; nothing where it is not there."""
        listed = self.admin.ask("/connections").document["connections"]
        return next((one for one in listed if one["vpn"] and address in one["vpn"]["addresses"]), {})


def accepts(port: int) -> bool:
    """Whether somebody listens on this port of localhost."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One VPN for all tests of this module."""
    made = Watched(tmp_path_factory.mktemp("vpn"))
    made.hosts["alpha"].run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1")
    try:
        with running(made.daemon, made.alpha, made.beta):
            yield made
    finally:
        made.close()


def test_its_peers_are_counted_by_transport(world: Watched) -> None:
    assert world.number("peers", transport="dtls") == world.number("peers", transport="tls") == 1
    assert world.number("peers_met_total", transport="dtls") == 1
    assert faults(world.admin.ask("/metrics").body) == []


def test_packets_and_their_bytes_are_counted_each_way(world: Watched) -> None:
    def count() -> dict[str, tuple[float, float]]:
        return {
            side: (
                world.number("packets_total", side=side),
                world.admin.metric("culvert_sent_bytes_total", service="vpn", side=side),
            )
            for side in ("tls", "plain")
        }

    before = count()
    for name in ("alpha", "beta"):
        assert world.pings(name, OURS)
    after = count()
    for side in before:
        packets, octets = (now - then for now, then in zip(after[side], before[side], strict=True))
        assert packets >= 2
        assert octets >= packets * 84


def test_what_is_dropped_is_counted_by_reason(world: Watched) -> None:
    world.hosts["alpha"].run("ip address add 192.0.2.9/32 dev lo")
    spoofed = world.number("packets_dropped_total", reason="spoofed")
    assert not world.pings("alpha", OURS, "-I", "192.0.2.9")
    assert world.number("packets_dropped_total", reason="spoofed") == spoofed + 1
    strayed = world.number("packets_dropped_total", reason="strayed")
    world.hosts["beta"].run("ip route add 10.87.0.10 dev cvc0 src 10.87.0.20")
    assert not world.pings("beta", "10.87.0.10")
    assert world.number("packets_dropped_total", reason="strayed") > strayed
    refused = [name for name, _ in world.admin.metrics() if name == "culvert_connections_refused_total"]
    assert refused == []  # those are connections


def test_a_peer_that_moves_and_datagrams_of_nobody_are_counted(world: Watched) -> None:
    before, host = OUTER["alpha"][1], world.hosts["alpha"]
    host.run("ip address add 10.78.1.77/24 dev eth0", f"ip address del {before}/24 dev eth0")
    eventually(lambda: world.pings("alpha", OURS), "an answer through the tunnel")
    assert world.number("peer_moves_total") == 1
    assert str(world.listed("10.87.0.10")["peer"]).startswith("10.78.1.77:")
    with host.entered():
        noise = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with noise:
        noise.sendto(b"nothing that anybody knows", (OUTER["alpha"][0], 4430))
    eventually(lambda: world.number("stray_datagrams_total") == 1, "the datagram's count")


def test_the_status_has_the_vpn(world: Watched) -> None:
    (service,) = world.admin.ask("/status").document["services"]
    assert service["vpn"]["interface"] == "cvs0"
    assert service["vpn"]["peers"] == {"tls": 1, "dtls": 1}
    told = run(command("status", "--admin", str(world.admin.at))).stdout
    assert "VPN cvs0 (1 over TLS, 1 over DTLS)" in " ".join(told.split())


def test_the_list_of_connections_has_the_addresses_in_the_vpn(world: Watched) -> None:
    assert world.listed("10.87.0.10")["vpn"] == {"transport": "DTLS", "addresses": ["10.87.0.10"]}
    told = run(command("connections", "--admin", str(world.admin.at))).stdout
    assert "VPN 10.87.0.10" in told
    assert "VPN 10.87.0.20" in told


@pytest.fixture
def page(world: Watched) -> Iterator[str]:
    """Where the status page is: the endpoint's socket as a port of localhost, as SSH would make it."""
    with fixed_ports(1) as (port,):
        listening = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
        forward = subprocess.Popen([require("socat"), listening, f"UNIX-CONNECT:{world.admin.at}"])
        try:
            eventually(lambda: accepts(port), "the forwarder")
            yield f"http://127.0.0.1:{port}/"
        finally:
            forward.terminate()
            forward.wait(PATIENCE)


def test_the_status_page_shows_the_vpn(page: str, tmp_path: Path) -> None:
    with Chromium(tmp_path) as browser:
        browser.open(page)
        browser.await_true("document.querySelector('#services article') !== null")
        shown = browser.text("#services")
        assert "VPN cvs0" in shown
        assert re.search(r"Peers over TLS\s*1\s*over DTLS\s*1\s*Packets dropped\s*\d", shown)
        browser.run("document.getElementById('listed').open = true")
        browser.await_true("document.getElementById('connections').textContent.includes('VPN 10.87.0.10')")


@pytest.mark.parametrize(("name", "address"), [("alpha", "10.87.0.10"), ("beta", "10.87.0.20")])
def test_a_peer_is_ended_with_a_summary_and_comes_back(world: Watched, name: str, address: str) -> None:
    client: Culvert = getattr(world, name)
    ident, mark = world.listed(address)["id"], client.log.mark()
    done = run(command("connections", "--admin", str(world.admin.at), "--end", str(ident)))
    assert "1 connection(s) ended" in done.stdout
    client.await_log("takes its leave", since=mark)
    client.await_log("VPN: this end has", since=mark)
    eventually(lambda: world.listed(address).get("id", ident) != ident, "another connection")
    closing = world.daemon.await_log(rf'.*"connection":"{ident}".*"message":"Connection closed:.*')[0]
    summary = json.loads(closing)
    assert (summary["vpn"], summary["reason"]) == (address, "closed")
    assert summary["sent_to_tls"] > 0
    assert world.pings(name, OURS)
    assert world.number("peers", transport="dtls") + world.number("peers", transport="tls") == 2
