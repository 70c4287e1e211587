"""Names of targets while the daemon runs: they move, they appear, they have addresses of both families."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .daemon import Jail, needs_root
from .harness import Culvert, eventually, require
from .peers import Listener, Peers

Start = Callable[..., Culvert]


def client(target: str, options: str = "") -> str:
    """A client service: it contacts its target as soon as somebody comes."""
    return f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = {target}\n{options}"


def with_hosts(hosts: Path) -> list[str]:
    """What runs a command with this file as /etc/hosts; the test may write to it at any time."""
    if subprocess.run([require("unshare"), "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace cannot be made here")
    return ["unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]


def comes_to(daemon: Culvert, peers: Peers, backend: Listener) -> None:
    """Asserts that the next connection is one to this backend."""
    mark = daemon.log.mark()
    peers.dial(daemon.port("c"))
    daemon.await_log(r"connected remote server from", since=mark)
    shown = re.escape(f"{backend.host}:{backend.port}")
    assert daemon.log.find(rf"s_connect: connecting {shown}$", mark), daemon.log.lines[mark:]


def test_a_name_that_moves_is_followed(
    tmp_path: Path, peers: Peers, event_loop_environment: dict[str, str]
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.2 moving.test\n")
    first = peers.listen("127.0.0.2")
    second = peers.listen("127.0.0.3", port=first.port)
    prefix = with_hosts(hosts)
    service = client(f"moving.test:{first.port}")
    with Culvert(tmp_path, service, prefix=prefix, environment=event_loop_environment) as daemon:
        comes_to(daemon, peers, first)
        hosts.write_text("127.0.0.3 moving.test\n")
        first.close()
        with pytest.raises(ConnectionResetError):
            peers.dial(daemon.port("c")).recv(1)
        daemon.await_log(rf"moving\.test:{first.port} is at 127\.0\.0\.3:{first.port} now$")
        comes_to(daemon, peers, second)


@pytest.mark.parametrize("failover", ["prio", "rr", "leastconn"])
def test_a_name_with_both_families(tmp_path: Path, peers: Peers, failover: str) -> None:
    """Nobody listens at its IPv6 address, which comes first: each connection reaches the other one."""
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 dual.test\n127.0.0.1 dual.test\n")
    backend = peers.listen()
    service = client(f"dual.test:{backend.port}", f"failover = {failover}\n")
    with Culvert(tmp_path, service, prefix=with_hosts(hosts)) as daemon:
        for _ in range(4):
            comes_to(daemon, peers, backend)
        assert len(daemon.log.find(r"s_connect: connecting ::1:")) == 1


@needs_root
@pytest.mark.parametrize("workers", [0, 1])
def test_a_jail_with_a_hosts_file_has_names(
    culvert: Start, peers: Peers, tmp_path: Path, workers: int
) -> None:
    """The name has no answer at start, outside of the jail; the jail's own file knows it, and changes."""
    jail = Jail(tmp_path)
    (jail.root / "etc").mkdir()
    hosts = jail.root / "etc" / "hosts"
    hosts.write_text("127.0.0.2 jailed.invalid\n")
    first = peers.listen("127.0.0.2")
    second = peers.listen("127.0.0.3", port=first.port)
    options = f"chroot = {jail.root}\nsetuid = nobody\nsetgid = nogroup\n"
    daemon = culvert(client(f"jailed.invalid:{first.port}"), options=options, workers=workers)
    daemon.await_log(rf"jailed\.invalid:{first.port} is at 127\.0\.0\.2:{first.port} now$")
    comes_to(daemon, peers, first)
    hosts.write_text("127.0.0.3 jailed.invalid\n")
    first.close()
    with pytest.raises(ConnectionResetError):
        peers.dial(daemon.port("c")).recv(1)
    daemon.await_log(rf"jailed\.invalid:{first.port} is at 127\.0\.0\.3:{first.port} now$")
    comes_to(daemon, peers, second)


def test_a_dead_target_is_found_before_a_client_comes(culvert: Start, peers: Peers) -> None:
    dead, living = peers.listen(), peers.listen()
    dead.close()
    daemon = culvert(
        client(f"127.0.0.1:{dead.port}", f"connect = 127.0.0.1:{living.port}\nhealthCheck = 1\n")
    )
    daemon.await_log(rf"LOG4\[c\]: Service \[c\]: 127\.0\.0\.1:{dead.port} is set aside: Connection refused$")
    comes_to(daemon, peers, living)
    assert not daemon.log.find(rf"s_connect: connecting 127\.0\.0\.1:{dead.port}$")


@pytest.mark.parametrize("workers", [0, 1])
def test_probes_end_with_their_generation(culvert: Start, peers: Peers, workers: int) -> None:
    """Also while it drains: what the new one probes is connected to, and the old target no more."""
    old, new = peers.listen(), peers.listen()
    daemon = culvert(client(f"127.0.0.1:{old.port}", "healthCheck = 1\n"), workers=workers)
    old.accept()  # the first probe
    held = peers.dial(daemon.port("c"))
    daemon.await_log("connected remote server")
    mark = daemon.reload(client(f"127.0.0.1:{new.port}", "healthCheck = 1\n"))
    daemon.await_log("Accepting new connections", since=mark)
    probes = daemon.log.mark()
    for _ in range(3):
        new.accept()
    eventually(lambda: len(daemon.log.find(f"Trying whether 127.0.0.1:{new.port}", probes)) >= 2, "probes")
    assert not daemon.log.find(f"Trying whether 127.0.0.1:{old.port}", probes)
    held.close()
