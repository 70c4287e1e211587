"""A VPN with two clients: what goes through it, and what does not."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import PATIENCE, Culvert, eventually
from .vpn_world import VpnWorld, running

SERVER = """\
tunAddress = 10.9.0.1/24
tunAddress = fd09::1/64
tunPool = 10.9.0.0/24
tunPool = fd09::/64
tunClient = alpha: 10.9.0.10, fd09::10, 192.168.10.0/24
tunRoute = 192.168.1.0/24, 192.168.2.0/24, fd01::/64
tunAccept = 192.168.20.0/24
"""

ALPHA = "tunAccept = 192.168.1.0/24, fd00::/8\ntunRoute = 192.168.10.0/24\n"
BETA = "tunRoute = 192.168.20.0/25, 192.168.30.0/24, 192.168.10.128/25\n"

UNPRIVILEGED = "setuid = nobody\nsetgid = nogroup\n"


class Vpn(VpnWorld):
    """A server with both clients connected. All run without root, once they have started."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hosts["server"].run(
            "ip address add 192.168.1.1/24 dev lo",
            "ip address add 192.168.2.1/24 dev lo",
            "ip address add fd01::1/64 dev lo",
        )
        self.hosts["alpha"].run("ip address add 192.168.10.1/24 dev lo")
        self.hosts["beta"].run("ip address add 192.168.20.1/25 dev lo")
        self.daemons = {
            "server": self.server(SERVER, UNPRIVILEGED),
            "alpha": self.client("alpha", ALPHA, UNPRIVILEGED),
            "beta": self.client("beta", BETA, UNPRIVILEGED),
        }

    def log(self, name: str) -> Culvert:
        """The daemon of a host."""
        return self.daemons[name]


@pytest.fixture(scope="module")
def vpn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vpn]:
    """One VPN for all tests of this module."""
    world = Vpn(tmp_path_factory.mktemp("vpn"))
    try:
        with running(*world.daemons.values()):
            yield world
    finally:
        world.close()


@pytest.mark.parametrize(("server", "client"), [("10.9.0.1", "10.9.0.10"), ("fd09::1", "fd09::10")])
def test_both_ends_reach_each_other(vpn: Vpn, server: str, client: str) -> None:
    assert vpn.pings("alpha", server)
    assert vpn.pings("server", client)


@pytest.mark.parametrize("address", ["10.9.0.1", "fd09::1"])
def test_a_flow_arrives_as_it_was_sent(vpn: Vpn, address: str) -> None:
    sent, received = vpn.transfer("alpha", "server", address, 24 << 20)
    assert received == sent


def test_a_flow_of_the_server_arrives_as_it_was_sent(vpn: Vpn) -> None:
    sent, received = vpn.transfer("server", "beta", "10.9.0.2", 8 << 20)
    assert received == sent


def test_datagrams_that_the_kernel_is_to_cut_arrive_each_by_itself(vpn: Vpn) -> None:
    segment = 103  # UDP_SEGMENT of linux/udp.h, which the socket module does not name
    with vpn.hosts["server"].entered():
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with vpn.hosts["alpha"].entered():
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far:
        far.bind(("10.9.0.1", 0))
        far.settimeout(PATIENCE)
        near.setsockopt(socket.SOL_UDP, segment, 1000)
        near.sendto(bytes(range(250)) * 80, far.getsockname())
        assert [len(far.recv(2000)) for _ in range(20)] == [1000] * 20


def test_packets_of_every_length_arrive(vpn: Vpn) -> None:
    for size in (0, 1, 1400, 1472, 1473, 4000, 60000):
        assert vpn.pings("alpha", "10.9.0.1", "-s", str(size)), size


def test_a_client_has_its_address_by_its_name_and_another_from_the_pool(vpn: Vpn) -> None:
    assert vpn.addresses("alpha", "cvc0") == {"10.9.0.10", "fd09::10"}
    assert vpn.addresses("beta", "cvc0") == {"10.9.0.2", "fd09::2"}


def test_a_client_sets_the_routes_that_it_accepts_and_says_which_it_does_not(vpn: Vpn) -> None:
    assert vpn.routes("alpha", "cvc0") == {"10.9.0.1", "fd09::1", "192.168.1.0/24", "fd01::/64"}
    assert vpn.routes("beta", "cvc0") == {"10.9.0.1", "fd09::1"}
    assert vpn.pings("alpha", "192.168.1.1")
    assert vpn.log("alpha").log.find(
        r"behind it: 192\.168\.1\.0/24, .*; not accepted: 192\.168\.2\.0/24 \(beyond tunAccept\)$"
    )


def test_a_server_sets_the_routes_of_its_clients_where_it_was_told_to(vpn: Vpn) -> None:
    assert vpn.routes("server", "cvs0") == {"192.168.10.0/24", "192.168.20.0/25"}
    assert vpn.pings("server", "192.168.20.1")
    assert vpn.pings("server", "192.168.10.1")
    assert vpn.log("server").log.find(
        r"has 10\.9\.0\.2, .*behind it: 192\.168\.20\.0/25; "
        r"not accepted: 192\.168\.30\.0/24 \(beyond tunAccept\), 192\.168\.10\.128/25 \(beyond tunAccept\)"
    )


def test_clients_do_not_reach_one_another(vpn: Vpn) -> None:
    mark = vpn.log("server").log.mark()
    vpn.hosts["alpha"].run("ip route add 10.9.0.2/32 dev cvc0")
    assert not vpn.pings("alpha", "10.9.0.2", "-W", "0.3")
    pattern = r"LOG4.*sent to 10\.9\.0\.2, which is another client's, without tunClientToClient: dropped"
    vpn.log("server").await_log(pattern, since=mark)


def test_a_host_that_sends_to_an_address_that_nobody_has_is_told_so(vpn: Vpn) -> None:
    with vpn.hosts["server"].entered(), socket.socket() as sock:
        sock.settimeout(PATIENCE)
        with pytest.raises(OSError, match="No route to host"):
            sock.connect(("10.9.0.200", 1))


def test_what_is_sent_from_another_address_is_dropped_and_logged_once_a_second(vpn: Vpn) -> None:
    server = vpn.log("server")
    mark = server.log.mark()
    vpn.hosts["beta"].run("ip address add 10.9.0.99/32 dev cvc0")
    try:
        vpn.ask("beta", "ping -c 20 -i 0.01 -W 0.3 -I 10.9.0.99 10.9.0.1")
        pattern = r"LOG4.*sent from 10\.9\.0\.99, which is not its address .*: dropped"
        server.await_log(pattern, since=mark)
        assert len(server.log.find(pattern, mark)) <= 2
    finally:
        vpn.hosts["beta"].run("ip address del 10.9.0.99/32 dev cvc0")
    assert vpn.pings("beta", "10.9.0.1")


def test_what_a_host_says_to_its_neighbours_stays_at_home(vpn: Vpn) -> None:
    vpn.ask("alpha", "ping -c 1 -W 0.2 ff02::1%cvc0")
    vpn.ask("alpha", "ping -c 1 -W 0.2 -b 255.255.255.255")
    assert vpn.pings("alpha", "10.9.0.1")
    assert not vpn.log("server").log.find("fe80:|ff02:")


def test_the_list_tells_who_is_where(vpn: Vpn) -> None:
    server = vpn.log("server")
    mark = server.log.mark()
    server.send_signal(signal.SIGUSR2)
    server.await_log(r"VPN cvs0: \d+ packet\(s\) and \d+ byte\(s\) in, .*met: 2 tls; 0 refused", since=mark)
    server.await_log(r"VPN cvs0: 10\.9\.0\.10/32 is 10\.78\.1\.2:\d+ over TLS", since=mark)
    server.await_log(
        r"Service \[vpn\] connection \[\d+\] from 10\.78\.1\.2:\d+: VPN 10\.9\.0\.10, .* over TLS, ",
        since=mark,
    )


def test_the_powers_that_are_left(vpn: Vpn) -> None:
    """A server that accepts routes and a client may set addresses and routes, and nothing else."""
    for name in ("server", "alpha"):
        for pid in vpn.log(name).tree()[1:]:
            status = Path(f"/proc/{pid}/status").read_text()
            powers = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
            assert int(powers, 16) == 1 << 12, status
            assert "NoNewPrivs:\t1" in status


def test_a_client_with_another_identity_is_refused(vpn: Vpn) -> None:
    """One without a certificate of the CA does not come as far as a HELLO."""
    server = vpn.log("server")
    mark = server.log.mark()
    with vpn.connection("beta", "10.78.2.1", 4430) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert sock.recv(100)[:1] in (b"", b"\x15")
    server.await_log("TLS handshake with 10.78.2.2:.* failed", since=mark)


def test_nothing_is_left_when_a_daemon_ends(vpn: Vpn) -> None:
    beta = vpn.log("beta")
    beta.stop()
    assert not vpn.addresses("beta", "cvc0")
    assert "cvc0" not in vpn.ask("beta", "ip link")
    vpn.log("server").await_log("takes its leave: the other end ends the link")
    eventually(lambda: "192.168.20.0/25" not in vpn.routes("server", "cvs0"), "the end of the route")
    assert vpn.pings("alpha", "10.9.0.1")
