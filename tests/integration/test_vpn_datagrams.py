"""A VPN over DTLS, between hosts in network namespaces."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .admin_client import Admin
from .harness import Culvert, eventually, require
from .vpn_world import OUTER, VpnWorld, running

SERVER = """\
transport = dtls
tunAddress = 10.88.0.1/24
tunAddress = fd88::1/64
tunPool = 10.88.0.0/24
tunPool = fd88::/64
"""
CLIENT = "transport = dtls\n"
OURS = "10.88.0.1"
PORT = 4430
SECOND = "10.78.1.9"
"""Another address of the server on alpha's link."""

ELSEWHERE = "10.78.1.77"
"""Where alpha moves to."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VpnWorld]:
    made = VpnWorld(tmp_path_factory.mktemp("vpn"))
    try:
        made.hosts["alpha"].run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1")
        made.hosts["server"].run(f"ip address add {SECOND}/24 dev alpha")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def server(world: VpnWorld) -> Iterator[Culvert]:
    """One server for all tests that do not end it."""
    daemon = world.server(SERVER, "setuid = nobody\nsetgid = nogroup\n")
    with running(daemon):
        yield daemon


def address_of(world: VpnWorld, name: str) -> str:
    """The client's address in the VPN, of IPv4."""
    (found,) = [one for one in world.addresses(name, "cvc0") if ":" not in one]
    return found


def test_packets_go_both_ways(world: VpnWorld, server: Culvert) -> None:
    client = world.client("alpha", CLIENT, "setuid = nobody\nsetgid = nogroup\n")
    with running(client):
        client.await_log("over DTLS with packets up to")
        eventually(lambda: "mtu 1415" in world.ask("alpha", "ip link show dev cvc0"), "the MTU")
        here = address_of(world, "alpha")
        assert world.pings("alpha", OURS)
        assert world.pings("alpha", "fd88::1")
        assert world.pings("server", here)
        for size in ("1402", "1500", "4000"):
            assert world.pings("alpha", OURS, "-s", size)
            assert world.pings("server", here, "-s", size)
        for source, destination, address in (("alpha", "server", OURS), ("server", "alpha", here)):
            sent, received = world.transfer(source, destination, address, 10_000_000)
            assert sent == received
        server.await_log("association from 10.78.1.2")


def test_the_server_answers_from_the_address_that_was_asked(world: VpnWorld, server: Culvert) -> None:
    section = world.client_section("alpha", CLIENT).replace(OUTER["alpha"][0], SECOND)
    folder = world.folder / "second"
    folder.mkdir()
    client = Culvert(folder, section, prefix=world.hosts["alpha"].prefix)
    with running(client):
        client.await_log(f"{SECOND}:{PORT} has {OURS}, .* over DTLS")
        assert world.pings("alpha", OURS)


def test_a_client_that_moves_keeps_its_tunnel(world: VpnWorld, server: Culvert) -> None:
    client = world.client("alpha", CLIENT)
    before = len(server.log.lines)
    host = world.hosts["alpha"]
    with running(client):
        here = address_of(world, "alpha")
        sent = len(client.log.lines)
        host.run(
            f"ip address add {ELSEWHERE}/24 dev eth0",
            f"ip address del {OUTER['alpha'][1]}/24 dev eth0",
        )
        try:
            eventually(lambda: world.pings("alpha", OURS), "an answer through the tunnel")
            server.log.wait(f"VPN: 10.78.1.2:[0-9]+ is at {ELSEWHERE}", since=before)
            assert world.pings("server", here)
            assert not [line for line in client.log.lines[sent:] if "VPN" in line]
            server.send_signal(signal.SIGUSR2)
            server.log.wait(rf"VPN cvs0: {here}/32 is {ELSEWHERE}:[0-9]+ over DTLS", since=before)
        finally:
            host.run(
                f"ip address add {OUTER['alpha'][1]}/24 dev eth0",
                f"ip address del {ELSEWHERE}/24 dev eth0",
            )


def test_a_client_that_moves_to_where_it_may_not_be_loses_its_link(world: VpnWorld) -> None:
    port = 4433
    options = SERVER.replace("10.88", "10.86").replace("fd88", "fd86") + f"denyFrom = {ELSEWHERE}\n"
    section = world.server_section(options).replace(str(PORT), str(port)).replace("cvs0", "cvs3")
    asking = world.client_section("alpha", CLIENT).replace(str(PORT), str(port))
    host = world.hosts["alpha"]
    daemons = []
    for name, text in (("server", section), ("alpha", asking)):
        folder = world.folder / f"refused-{name}"
        folder.mkdir()
        daemons.append(Culvert(folder, text, prefix=world.hosts[name].prefix))
    with running(*daemons):
        server = daemons[0]
        server.await_log("10.86.0.2.* over DTLS")
        host.run(
            f"ip address add {ELSEWHERE}/24 dev eth0",
            f"ip address del {OUTER['alpha'][1]}/24 dev eth0",
        )
        try:
            world.pings("alpha", "10.86.0.1")
            server.await_log(f"is at {ELSEWHERE}:[0-9]+ now, which is refused: denyFrom names its address")
            assert not world.pings("alpha", "10.86.0.1")
        finally:
            host.run(
                f"ip address add {OUTER['alpha'][1]}/24 dev eth0",
                f"ip address del {ELSEWHERE}/24 dev eth0",
            )


def test_packets_are_as_long_as_the_way_carries(world: VpnWorld, server: Culvert) -> None:
    host = world.hosts["alpha"]
    host.run("ip link set eth0 mtu 1400")
    client = world.client("alpha", CLIENT)
    try:
        with running(client):
            client.await_log("over DTLS with packets up to 1315 bytes")
            host.run("ip link set eth0 mtu 1350")
            mtu = re.compile(r"mtu 12(7[2-9]|80)")
            world.pings("alpha", OURS, "-s", "1272")  # too long now: by this it is noticed
            eventually(lambda: mtu.search(world.ask("alpha", "ip link show dev cvc0")) is not None, "the MTU")
            sent, received = world.transfer("alpha", "server", OURS, 2_000_000)
            assert sent == received
    finally:
        host.run("ip link set eth0 mtu 1500")


def test_a_short_way_carries_what_every_link_of_ipv6_does(world: VpnWorld, server: Culvert) -> None:
    host = world.hosts["alpha"]
    host.run("ip link set eth0 mtu 1300")
    client = world.client("alpha", CLIENT)
    try:
        with running(client):
            client.await_log("over DTLS with packets up to 1280 bytes")
            assert world.pings("alpha", "fd88::1", "-s", str(1280 - 48))
            # The server's host learns by the first that its answers are too long for this client.
            eventually(lambda: world.pings("alpha", "fd88::1", "-s", "4000"), "an answer in fragments")
    finally:
        host.run("ip link set eth0 mtu 1500")


@pytest.mark.parametrize("rule", ["OUTPUT -p udp --dport", "INPUT -p udp --sport"])
def test_where_udp_is_dropped_later_on_tls_takes_over(world: VpnWorld, server: Culvert, rule: str) -> None:
    require("iptables")
    client = world.client("beta", CLIENT)
    host = world.hosts["beta"]
    with running(client):
        client.await_log("over DTLS")
        seen = len(client.log.lines)
        host.run(f"iptables -A {rule} {PORT} -j DROP")
        try:
            started = time.monotonic()
            eventually(lambda: world.pings("beta", OURS), "an answer through the tunnel")
            assert time.monotonic() - started < 15
            client.log.wait("VPN: UDP does not get through to the server: TLS is in use", since=seen)
        finally:
            host.run(f"iptables -D {rule} {PORT} -j DROP")


def test_where_udp_is_dropped_tls_is_used(world: VpnWorld, server: Culvert) -> None:
    require("iptables")
    admin = Admin(world.folder / "fallback")
    client = world.client("beta", CLIENT, f"admin = {admin.at}\n")
    host = world.hosts["beta"]
    host.run(f"iptables -A OUTPUT -p udp --dport {PORT} -j DROP")
    started = time.monotonic()
    with running(client):
        client.await_log("UDP does not get through to the server: TLS is in use, UDP is tried again in 60 s")
        client.await_log("over TLS")
        assert time.monotonic() - started < 15
        assert world.pings("beta", OURS)
        assert admin.metric("culvert_vpn_fallbacks_total", service="vpn") == 1
        assert admin.metric("culvert_vpn_peers", service="vpn", transport="tls") == 1
    host.run(f"iptables -D OUTPUT -p udp --dport {PORT} -j DROP")


def test_where_the_server_takes_no_datagrams_tls_is_used_at_once(world: VpnWorld) -> None:
    port = 4431
    options = SERVER.replace("transport = dtls\n", "").replace("10.88", "10.89").replace("fd88", "fd89")
    section = world.server_section(options).replace(str(PORT), str(port)).replace("cvs0", "cvs1")
    asking = world.client_section("beta", CLIENT).replace(str(PORT), str(port))
    daemons = []
    for name, text in (("server", section), ("beta", asking)):
        folder = world.folder / f"tls-{name}"
        folder.mkdir()
        daemons.append(Culvert(folder, text, prefix=world.hosts[name].prefix))
    started = time.monotonic()
    with running(*daemons):
        daemons[1].await_log("UDP to 10.78.2.1:4431: Connection refused")
        daemons[1].await_log("over TLS")
        assert time.monotonic() - started < 8
        assert world.pings("beta", "10.89.0.1")


def test_a_server_that_comes_back_is_found_again(world: VpnWorld) -> None:
    folder = world.folder / "back"
    folder.mkdir()
    section = world.server_section(SERVER.replace("10.88", "10.87").replace("fd88", "fd87"))
    section = section.replace(str(PORT), "4432").replace("cvs0", "cvs2")
    client_folder = world.folder / "back-client"
    client_folder.mkdir()
    asking = world.client_section("beta", CLIENT).replace(str(PORT), "4432")
    client = Culvert(client_folder, asking, prefix=world.hosts["beta"].prefix)
    with Culvert(folder, section, prefix=world.hosts["server"].prefix):
        client.start()
        client.await_log("over DTLS")
    try:
        client.await_log("takes its leave: the other end ends the link")
        seen = len(client.log.lines)
        with Culvert(folder, section, prefix=world.hosts["server"].prefix):
            client.log.wait("over (DTLS|TLS)", since=seen)
            eventually(lambda: world.pings("beta", "10.87.0.1"), "an answer through the tunnel")
    finally:
        client.stop()


def test_a_server_that_crashed_is_found_again_soon(world: VpnWorld, server: Culvert) -> None:
    client = world.client("alpha", CLIENT)
    with running(client):
        seen = len(client.log.lines)
        (worker,) = [int(one) for one in children(server.process.pid) if resident(int(one))]
        os.kill(worker, signal.SIGKILL)
        started = time.monotonic()
        eventually(lambda: world.pings("alpha", OURS), "an answer through the tunnel")
        client.log.wait("the server does not know of this link any more", since=seen)
        assert time.monotonic() - started < 12


def test_noise_and_hellos_without_cookies_leave_nothing(world: VpnWorld, server: Culvert) -> None:
    client = world.client("alpha", CLIENT)
    with running(client):
        (worker,) = [int(one) for one in children(server.process.pid) if resident(int(one))]
        hello = first_datagram(world)
        with world.hosts["beta"].entered():
            noise = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        target = (OUTER["beta"][0], PORT)
        lines = len(server.log.lines)
        flood(noise, target, hello, 2000)
        server.log.wait("VPN: more than 200 datagrams of nobody within a second", since=lines)
        before = resident(worker)
        flood(noise, target, hello, 20_000)
        eventually(lambda: world.pings("alpha", OURS), "an answer after the flood")
        assert resident(worker) - before < 2 * 1024 * 1024
        told = server.log.lines[lines:]
        assert all("more than 200 datagrams of nobody" in one for one in told)
        assert len(told) < 30  # one for each second
        noise.close()


def flood(noise: socket.socket, target: tuple[str, int], hello: bytes, count: int) -> None:
    """Every other datagram a ClientHello of a client that nobody knows, the others noise."""
    for number in range(count):
        noise.sendto(os.urandom(4) + (hello[4:] if number % 2 else os.urandom(number % 1200)), target)


def first_datagram(world: VpnWorld) -> bytes:
    """What a client says first."""
    folder = world.folder / "silent"
    folder.mkdir()
    with world.hosts["server"].entered():
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("10.78.2.1", 4439))
    silent.settimeout(10)
    asking = world.client_section("beta", CLIENT).replace(str(PORT), "4439")
    with silent, Culvert(folder, asking, prefix=world.hosts["beta"].prefix):
        return silent.recv(2000)


def children(pid: int) -> list[str]:
    """The processes that the daemon has forked, and those of whoever entered its namespace for it."""
    found: list[str] = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
        found += children(int(child)) or [child]
    return found


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * 4096
