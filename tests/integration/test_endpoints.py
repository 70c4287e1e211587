"""Where a service listens and what it connects to: IPv4, IPv6, Unix sockets, several targets, a source."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert, require
from .peers import (
    Listener,
    Peers,
    PlainPeer,
    TlsPeer,
    client_context,
    read_all,
    read_exactly,
)

Start = Callable[..., Culvert]


@pytest.fixture
def server(certificates: Certificates) -> str:
    """The options that a server service needs."""
    return f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"


def unix_listener(path: Path) -> socket.socket:
    """A listening Unix socket whose waits are bounded."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(PATIENCE)
    return listener


def converse(plain: PlainPeer, tls: TlsPeer) -> None:
    """A few bytes both ways, then both ends."""
    plain.send(b"from plain")
    assert read_exactly(tls, 10) == b"from plain"
    tls.send(b"from tls")
    assert read_exactly(plain, 8) == b"from tls"
    plain.end()
    assert read_all(tls) == b""
    tls.end()
    assert read_all(plain) == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("target", ["127.0.0.1", "::1"])
def test_accept_and_connect_over_both_families(
    culvert: Start, server: str, peers: Peers, host: str, target: str
) -> None:
    backend = peers.listen(target)
    shown = {"127.0.0.1": "127.0.0.1:0", "::1": "::1:0"}[host]
    destination = f"[::1]:{backend.port}" if target == "::1" else f"{target}:{backend.port}"
    daemon = culvert(f"[s]\naccept = {shown}\nconnect = {destination}\n{server}")
    tls = TlsPeer(peers.dial(daemon.port("s"), host), client_context(), server=False)
    tls.handshake()
    plain = backend.accept()
    client_port = tls.sock.getsockname()[1]
    source = plain.getpeername()[1]
    converse(PlainPeer(plain), tls)
    client = daemon.await_log(r"Service \[s\] accepted connection from (\S+):(\d+)$")
    assert client.groups() == (host, str(client_port))
    local = daemon.await_log(r"Service \[s\] connected remote server from (\S+):(\d+)$")
    assert local.groups() == (target, str(source))


def test_accept_without_a_host_listens_on_all_ipv4(culvert: Start, server: str, peers: Peers) -> None:
    backend = peers.listen()
    daemon = culvert(f"[s]\naccept = 0\nconnect = {backend.port}\n{server}")
    bound = daemon.await_log(r"Service \[s\] \(FD=\d+\) bound to 0\.0\.0\.0:(\d+)$")
    tls = TlsPeer(peers.dial(int(bound.group(1))), client_context(), server=False)
    tls.handshake()
    converse(PlainPeer(backend.accept()), tls)


def test_an_accept_of_all_ipv6(culvert: Start, server: str, peers: Peers) -> None:
    backend = peers.listen()
    daemon = culvert(f"[s]\naccept = :::0\nconnect = {backend.port}\n{server}")
    assert daemon.address("s")[0] == "::"
    tls = TlsPeer(peers.dial(daemon.port("s"), "::1"), client_context(), server=False)
    tls.handshake()
    converse(PlainPeer(backend.accept()), tls)


def test_accept_and_connect_over_unix_sockets_in_both_roles(
    culvert: Start, server: str, peers: Peers, tmp_path: Path
) -> None:
    """plain Unix socket -> client -> Unix socket -> server -> plain Unix socket"""
    front, middle, back = (tmp_path / name for name in ("front", "middle", "back"))
    with unix_listener(back) as backend:
        daemon = culvert(
            f"[client]\nclient = yes\naccept = {front}\nconnect = {middle}\n"
            f"[server]\naccept = {middle}\nconnect = {back}\n{server}"
        )
        bound = daemon.log.find(r"Service \[\w+\] \(FD=\d+\) bound to (/\S+)$")
        assert {match.group(1) for match in bound} == {str(front), str(middle)}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(str(front))
            client.sendall(b"through three sockets")
            with backend.accept()[0] as accepted:
                accepted.settimeout(PATIENCE)
                assert read_exactly(PlainPeer(accepted), 21) == b"through three sockets"
        daemon.stop()
        assert not front.exists(), "the listening sockets are unlinked at exit"
        assert not middle.exists()


def test_connect_to_a_unix_socket_that_is_not_there(
    culvert: Start, server: str, peers: Peers, tmp_path: Path
) -> None:
    daemon = culvert(f"[s]\naccept = 127.0.0.1:0\nconnect = {tmp_path}/absent\n{server}")
    tls = peers.tls(daemon.port("s"), client_context())
    with pytest.raises(ConnectionResetError):
        read_all(tls)
    daemon.await_log(rf"LOG3\[\S+\]: .*{tmp_path}/absent.*No such file")


def served_by(daemon: Culvert, peers: Peers, backends: dict[str, Listener]) -> str:
    """Which backend the next connection of the client service [c] reaches."""
    sock = peers.dial(daemon.port("c"))
    sock.sendall(b"x")
    readable, _, _ = select.select([listener.sock for listener in backends.values()], [], [], PATIENCE)
    assert readable, "no backend was reached"
    name = next(name for name, listener in backends.items() if listener.sock in readable)
    backends[name].accept().close()
    sock.close()
    return name


def several(backends: dict[str, Listener], options: str) -> str:
    """A client service with these targets, in this order."""
    targets = "".join(f"connect = 127.0.0.1:{listener.port}\n" for listener in backends.values())
    return f"[c]\nclient = yes\naccept = 127.0.0.1:0\n{targets}{options}"


def test_prio_takes_the_first_that_answers(culvert: Start, peers: Peers) -> None:
    backends = {name: peers.listen() for name in "ab"}
    daemon = culvert(several(backends, ""))
    assert [served_by(daemon, peers, backends) for _ in range(4)] == ["a"] * 4
    backends["a"].close()
    del backends["a"]
    assert [served_by(daemon, peers, backends) for _ in range(3)] == ["b"] * 3


def test_prio_returns_to_the_first_when_it_is_back(culvert: Start, peers: Peers) -> None:
    backends = {name: peers.listen() for name in "ab"}
    port = backends["a"].port
    daemon = culvert(several(backends, ""))
    backends.pop("a").close()
    assert served_by(daemon, peers, backends) == "b"
    backends["a"] = peers.listen(port=port)
    daemon.await_log(rf"127\.0\.0\.1:{port} answers again")
    backends["a"].accept().close()  # the attempt that found it there
    assert served_by(daemon, peers, backends) == "a"


def test_rr_takes_them_in_turn_and_skips_the_dead(culvert: Start, peers: Peers) -> None:
    backends = {name: peers.listen() for name in "abc"}
    daemon = culvert(several(backends, "failover = rr\n"))
    seen = "".join(served_by(daemon, peers, backends) for _ in range(6))
    assert seen in {"abcabc", "bcabca", "cabcab"}
    backends["b"].close()
    del backends["b"]
    seen = "".join(served_by(daemon, peers, backends) for _ in range(6))
    assert set(seen) == {"a", "c"}


def test_delay_forces_prio(culvert: Start, peers: Peers) -> None:
    backends = {name: peers.listen() for name in "ab"}
    daemon = culvert(several(backends, "failover = rr\ndelay = yes\n"))
    assert [served_by(daemon, peers, backends) for _ in range(4)] == ["a"] * 4


def test_every_target_down(culvert: Start, peers: Peers) -> None:
    """The client is reset, every attempt stands in the log with its reason, and the service goes on."""
    backends = {name: peers.listen() for name in "ab"}
    daemon = culvert(several(backends, ""))
    ports = [backends[name].port for name in "ab"]
    for listener in backends.values():
        listener.close()
    for _ in range(2):
        mark = daemon.log.mark()
        with pytest.raises(ConnectionResetError):
            peers.dial(daemon.port("c")).recv(1)
        for port in ports:
            daemon.await_log(rf"LOG3\[\S+\]: .*127\.0\.0\.1:{port}.*Connection refused", since=mark)


def test_a_name_that_does_not_resolve_at_start_is_tried_again_later(culvert: Start, peers: Peers) -> None:
    daemon = culvert("[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = nowhere.invalid:80\n")
    mark = daemon.log.mark()
    with pytest.raises(ConnectionResetError):
        peers.dial(daemon.port("c")).recv(1)
    daemon.await_log(r"LOG[34]\[\S+\]: .*nowhere\.invalid", since=mark)


def test_delay_resolves_at_each_connection(tmp_path: Path, peers: Peers) -> None:
    """The name moves from 127.0.0.2 to 127.0.0.3 while the daemon runs, by a hosts file of its own."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.2 moving.test\n")
    if subprocess.run([require("unshare"), "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace cannot be made here")
    first = peers.listen("127.0.0.2")
    second = peers.listen("127.0.0.3", port=first.port)
    daemon = Culvert(
        tmp_path,
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = moving.test:{first.port}\ndelay = yes\n",
        prefix=["unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"],
    )
    with daemon:
        assert served_by(daemon, peers, {"first": first, "second": second}) == "first"
        hosts.write_text("127.0.0.3 moving.test\n")
        assert served_by(daemon, peers, {"first": first, "second": second}) == "second"


def test_local_is_the_source_address(culvert: Start, server: str, peers: Peers) -> None:
    backend = peers.listen()
    target = f"connect = 127.0.0.1:{backend.port}\nlocal = 127.0.0.9\n"
    daemon = culvert(f"[s]\naccept = 127.0.0.1:0\n{target}{server}")
    peers.tls(daemon.port("s"), client_context())
    assert backend.accept().getpeername()[0] == "127.0.0.9"
