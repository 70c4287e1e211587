"""How a VPN begins, goes on and ends: reloads, deaths, restarts, and what stands in its way."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, Culvert, eventually, require
from .vpn_world import VpnWorld, running

SERVER = "tunAddress = 10.9.0.1/24\ntunPool = 10.9.0.0/24\ntunKeepalive = 1\n"
CLIENT = "tunKeepalive = 1\n"
MET = r"VPN: this end has 10\.9\.0\.\d+, "


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VpnWorld]:
    """The hosts, for all tests of this module."""
    made = VpnWorld(tmp_path_factory.mktemp("vpn"))
    try:
        yield made
    finally:
        made.close()


def vpn_process(daemon: Culvert) -> int:
    """The pid of the only worker: that of the VPN."""
    (pid,) = daemon.tree()[1:]
    return pid


def private(files: dict[Path, str]) -> list[str]:
    """What goes before a command that sees these files in other places, and nobody else does."""
    mounts = " && ".join(f"mount --bind {file} {place}" for file, place in files.items())
    return [require("unshare"), "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def carried(world: VpnWorld) -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection through the VPN."""
    with world.hosts["server"].entered():
        listening = socket.create_server(("10.9.0.1", 0))
    with listening:
        listening.settimeout(PATIENCE)
        near = world.connection("alpha", "10.9.0.1", listening.getsockname()[1])
        far, _ = listening.accept()
        far.settimeout(PATIENCE)
        return near, far


def test_everything_is_gone_when_the_processes_are_killed(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server):
        client.launch()
        client.await_log(MET)
        assert world.routes("alpha", "cvc0") == {"10.9.0.1"}
        client.kill()
        eventually(lambda: "cvc0" not in world.ask("alpha", "ip link"), "the end of the interface")
        assert "10.9.0" not in world.ask("alpha", "ip route show table all")
        client.log.wait_end()
        client.stdout.wait_end()


def test_a_supervisor_that_is_killed_takes_the_interface_with_it(world: VpnWorld) -> None:
    server = world.server(SERVER)
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: "cvs0" not in world.ask("server", "ip link"), "the end of the interface")
    server.process.wait(PATIENCE)
    server.kill()
    server.log.wait_end()
    server.stdout.wait_end()


def test_a_process_that_is_killed_is_replaced_and_the_client_comes_back(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server, client):
        mark = client.log.mark()
        os.kill(vpn_process(server), signal.SIGKILL)
        client.await_log(MET, since=mark)
        assert world.addresses("alpha", "cvc0") == {"10.9.0.2"}
        assert world.pings("alpha", "10.9.0.1")


def test_an_interface_that_was_removed_comes_back(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server, client):
        mark = client.log.mark()
        world.hosts["server"].run("ip link delete cvs0")
        server.await_log(r"LOG3.*VPN: the interface cvs0 is gone")
        client.await_log("takes its leave: the interface is gone", since=mark)
        client.await_log(MET, since=mark)
        assert world.pings("alpha", "10.9.0.1")


def test_a_reload_that_changes_nothing_of_a_vpn_leaves_it_alone(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server, client):
        pid = vpn_process(server)
        near, far = carried(world)
        with near, far:
            more = "\n[other]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\n"
            mark = server.reload("debug = 6\n" + world.server_section(SERVER) + more)
            server.await_log("Accepting new connections", since=mark)
            assert pid in server.tree()
            near.sendall(b"still there")
            assert far.recv(100) == b"still there"
            mark = server.reload(world.server_section(SERVER))  # and there is nothing to fork
            server.await_log("Accepting new connections", since=mark)
            eventually(lambda: server.tree()[1:] == [pid], "the end of the other worker")
            far.sendall(b"yes")
            assert near.recv(100) == b"yes"
        mark = server.log.mark()
        server.send_signal(signal.SIGUSR2)
        server.await_log(r"VPN cvs0: 10\.9\.0\.2/32 is ", since=mark)
        # One that dies now is replaced as any of this generation.
        mark = client.log.mark()
        os.kill(pid, signal.SIGKILL)
        client.await_log(MET, since=mark)


def test_a_reload_that_changes_a_vpn_has_its_peers_come_back_at_once(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT + "tunAccept = 192.168.0.0/16\n")
    with running(server, client):
        before = vpn_process(server)
        mark = client.log.mark()
        server.reload(world.server_section(SERVER + "tunRoute = 192.168.1.0/24\n"))
        client.await_log("takes its leave: the other end ends the link", since=mark)
        client.await_log(MET + r".*behind it: 192\.168\.1\.0/24", since=mark)
        eventually(lambda: before not in server.tree(), "the end of the process")
        assert world.routes("alpha", "cvc0") == {"10.9.0.1", "192.168.1.0/24"}
        assert world.pings("alpha", "10.9.0.1")
        mark = client.log.mark()
        other = (SERVER + "tunRoute = 192.168.1.0/24\n").replace("10.9.", "10.8.")
        server.reload(world.server_section(other))
        client.await_log(r"VPN: this end has 10\.8\.0\.2, ", since=mark)
        assert world.addresses("alpha", "cvc0") == {"10.8.0.2"}
        assert world.routes("alpha", "cvc0") == {"10.8.0.1", "192.168.1.0/24"}
        assert world.pings("alpha", "10.8.0.1")


def test_an_address_that_is_taken_at_a_reload_is_had_once_it_is_free(world: VpnWorld) -> None:
    server = world.server(SERVER)
    with running(server):
        world.hosts["server"].run("ip address add 10.9.0.5/32 dev lo")
        try:
            mark = server.reload(world.server_section(SERVER.replace("10.9.0.1/24", "10.9.0.5/24")))
            server.await_log(
                r"LOG3.*Cannot set the address 10\.9\.0\.5 on cvs0: lo has it already", since=mark
            )
        finally:
            world.hosts["server"].run("ip address del 10.9.0.5/32 dev lo")
        server.await_log(r"has the interface cvs0 with 10\.9\.0\.5/24", since=mark)


def test_a_reload_that_is_refused_leaves_a_vpn_alone(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server, client):
        pid = vpn_process(server)
        mark = server.reload(world.server_section(SERVER + "tunPeer = 10.9.0.3\n"))
        server.await_log("Configuration failed", since=mark)
        assert vpn_process(server) == pid
        assert world.pings("alpha", "10.9.0.1")


def test_a_client_comes_back_to_a_server_that_was_restarted(world: VpnWorld) -> None:
    first, second, client = world.server(SERVER), world.server(SERVER), world.client("alpha", CLIENT)
    first.start()
    with running(client):
        mark = client.log.mark()
        first.stop()
        client.await_log("refused", since=mark)  # it goes on trying
        with second:
            client.await_log(MET, since=mark)
            assert world.pings("alpha", "10.9.0.1")


@pytest.mark.parametrize("more", ["", "transport = dtls\n"], ids=["tls", "dtls"])
def test_a_client_whose_name_server_is_beyond_the_tunnel_comes_back(world: VpnWorld, more: str) -> None:
    hosts, resolver = world.folder / "hosts", world.folder / "resolv.conf"
    hosts.write_text("10.78.1.1 vpn.test\n")
    resolver.write_text("nameserver 203.0.113.53\n")
    options = SERVER + "tunRoute = 203.0.113.0/24\n" + more
    first, second = world.server(options), world.server(options)
    section = world.client_section("alpha", CLIENT + "tunAccept = 203.0.113.0/24\n" + more)
    folder = world.folder / f"by-name-{len(list(world.folder.iterdir()))}"
    folder.mkdir()
    client = Culvert(
        folder,
        section.replace("connect = 10.78.1.1", "connect = vpn.test"),
        prefix=[*world.hosts["alpha"].prefix, *private({hosts: "/etc/hosts", resolver: "/etc/resolv.conf"})],
    )
    first.start()
    with running(client):
        hosts.write_text("")  # from now on it takes the name server, which nobody reaches
        mark = client.log.mark()
        first.stop()
        with second:
            client.await_log("no answer for vpn.test:4430: the addresses that it had are used", since=mark)
            client.await_log(MET, since=mark)
            assert world.pings("alpha", "10.9.0.1")


def test_a_client_goes_to_the_next_target_where_the_first_is_not_there(world: VpnWorld) -> None:
    client = world.client("alpha", CLIENT)
    two = "connect = 10.78.1.1:4429\nconnect = 10.78.1.1:4430"
    client.configure(world.client_section("alpha", CLIENT).replace("connect = 10.78.1.1:4430", two))
    with running(world.server(SERVER), client):
        assert world.pings("alpha", "10.9.0.1")


def test_a_peer_that_is_gone_without_a_word_is_noticed(world: VpnWorld) -> None:
    server, client = world.server(SERVER), world.client("alpha", CLIENT)
    with running(server, client):
        marks = server.log.mark(), client.log.mark()
        world.hosts["alpha"].run("ip link set eth0 down")
        try:
            for daemon, mark in zip((server, client), marks, strict=True):
                daemon.await_log(r"gives no sign of life for 4 s", since=mark)
        finally:
            world.hosts["alpha"].run("ip link set eth0 up")
        client.await_log(MET, since=marks[1])
        assert world.pings("alpha", "10.9.0.1")


def test_two_ends_with_fixed_addresses(world: VpnWorld) -> None:
    server = world.server("tunAddress = 10.9.0.1\ntunPeer = 10.9.0.2\n")
    client = world.client("alpha", "tunAddress = 10.9.0.2\ntunPeer = 10.9.0.1\ntunMTU = 1300\n")
    with running(server, client):
        assert world.pings("server", "10.9.0.2")
        assert "mtu 1300" in world.ask("alpha", "ip link show cvc0")


def test_a_client_whose_address_is_not_the_server_s_choice_is_refused(world: VpnWorld) -> None:
    server = world.server("tunAddress = 10.9.0.1\ntunPeer = 10.9.0.2\n")
    client = world.client("alpha", "tunAddress = 10.9.0.3\n")
    refusal = r"this client would have 10\.9\.0\.3, and its address here is 10\.9\.0\.2"
    with running(server), client:
        server.await_log(rf"LOG3.*is refused: {refusal}")
        client.await_log(rf"takes its leave: {refusal}")


def test_clients_reach_one_another_where_they_may(world: VpnWorld) -> None:
    server = world.server(SERVER + "tunClientToClient = yes\n")
    clients = [world.client(name, CLIENT + "tunAccept = 10.9.0.0/24\n") for name in ("alpha", "beta")]
    with running(server, *clients):
        assert world.pings("alpha", "10.9.0.3")
        sent, received = world.transfer("beta", "alpha", "10.9.0.2", 4 << 20)
        assert received == sent


def test_without_offload_everything_arrives_as_well(world: VpnWorld) -> None:
    server = world.server(SERVER + "tunOffload = no\n")
    with running(server, world.client("alpha", CLIENT + "tunOffload = no\n")):
        sent, received = world.transfer("alpha", "server", "10.9.0.1", 4 << 20)
        assert received == sent


# --- what stands in the way ---


def refused(daemon: Culvert) -> str:
    """The log of a daemon that does not start."""
    daemon.launch()
    assert daemon.wait() != 0
    daemon.stopped = True
    return "\n".join(daemon.log.lines)


def test_without_the_power_to_make_an_interface(world: VpnWorld) -> None:
    server = world.server(SERVER)
    server._prefix = [
        *server._prefix,
        require("setpriv"),
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
    ]
    found = refused(server)
    assert "No permission to create the interface cvs0: it takes CAP_NET_ADMIN" in found
    assert '"tun = cvs0"' in found


def test_an_address_that_another_interface_has(world: VpnWorld) -> None:
    world.hosts["server"].run("ip address add 10.9.0.1/32 dev lo")
    try:
        found = refused(world.server(SERVER))
    finally:
        world.hosts["server"].run("ip address del 10.9.0.1/32 dev lo")
    assert "Cannot set the address 10.9.0.1 on cvs0: lo has it already" in found
    assert "cvs0" not in world.ask("server", "ip link")


def test_an_interface_of_the_same_name(world: VpnWorld) -> None:
    world.hosts["server"].run("ip tuntap add dev cvs0 mode tun")
    try:
        found = refused(world.server(SERVER))
    finally:
        world.hosts["server"].run("ip tuntap del dev cvs0 mode tun")
    assert "Cannot create the interface cvs0: there is an interface of this name already" in found


def test_an_address_given_to_a_client_that_its_host_has_elsewhere(world: VpnWorld) -> None:
    world.hosts["alpha"].run("ip address add 10.9.0.2/32 dev lo")
    try:
        with running(world.server(SERVER)), world.client("alpha", CLIENT) as client:
            client.await_log(
                r"LOG3.*is refused: Cannot set the address 10\.9\.0\.2 on cvc0: lo has it already"
            )
    finally:
        world.hosts["alpha"].run("ip address del 10.9.0.2/32 dev lo")


def test_a_route_into_the_tunnel_s_own_way_is_not_set(world: VpnWorld) -> None:
    server = world.server(SERVER + "tunRoute = 10.78.0.0/16\n")
    client = world.client("alpha", CLIENT + "tunAccept = 0.0.0.0/0\n")
    with running(server, client):
        client.await_log(
            r"a route to 10\.78\.0\.0/16 would lead the tunnel into itself, for 10\.78\.1\.1 is there"
        )
        assert world.pings("alpha", "10.9.0.1")


def test_a_stop_waits_for_nobody_and_tells_the_peers(world: VpnWorld) -> None:
    """A VPN's links never end by themselves: `drainTimeout` would only be an outage."""
    server, client = world.server(SERVER, "drainTimeout = 600\n"), world.client("alpha", CLIENT)
    with running(server, client):
        mark = client.log.mark()
        server.send_signal(signal.SIGTERM)
        client.await_log("takes its leave: the other end ends the link", since=mark)
        server.stop()
        assert not server.log.find("waiting for")
        assert world.addresses("alpha", "cvc0") == {"10.9.0.2"}
        assert world.routes("alpha", "cvc0") == {"10.9.0.1"}


@pytest.mark.parametrize("transport", ["", "transport = dtls\n"], ids=["tls", "dtls"])
def test_a_vpn_works_behind_a_jail_and_without_root(world: VpnWorld, transport: str) -> None:
    options = f"chroot = {world.folder}\nsetuid = nobody\nsetgid = nogroup\n"
    server = world.server(SERVER + transport, options)
    client = world.client("alpha", CLIENT + transport, options)
    with running(server, client):
        assert world.pings("alpha", "10.9.0.1")
        mark = client.log.mark()
        server.reload(world.server_section((SERVER + transport).replace("10.9.", "10.8.")))
        client.await_log(r"VPN: this end has 10\.8\.0\.2, ", since=mark)
        assert world.pings("alpha", "10.8.0.1")
