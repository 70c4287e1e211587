"""chroot, setuid and setgid: what the workers keep, and what the supervisor keeps for them."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import NOBODY, Detached, Jail, children, command, fixed_ports, needs_root, run, status
from .echo import open_tls, say_tls
from .harness import Culvert, eventually
from .peers import read_all

pytestmark = needs_root


def jailed_services(certificates: Certificates, echo_port: int, id_port: int) -> str:
    """A service that gives back what it gets, and one that tells as whom its program runs."""
    leaf = certificates.server
    return (
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
        f"[echo]\naccept = 127.0.0.1:{echo_port}\nexec = /bin/busybox\nexecArgs = busybox cat\n"
        f"[id]\naccept = 127.0.0.1:{id_port}\nexec = /bin/busybox\nexecArgs = busybox id\n"
    )


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """A port for each service."""
    with fixed_ports(2) as ports:
        yield ports


@pytest.fixture
def jail(tmp_path: Path) -> Jail:
    """A directory to be jailed in."""
    return Jail(tmp_path)


@pytest.fixture
def daemon(tmp_path: Path, certificates: Certificates, jail: Jail, ports: list[int]) -> Iterator[Detached]:
    """A detached daemon in the jail, without the powers of root."""
    text = jail.options + "workers = 2\n" + jailed_services(certificates, *ports)
    with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
        yield daemon


def assert_powerless(pid: int) -> None:
    """Asserts that a process is nobody, in every respect and for good."""
    fields = status(pid)
    assert fields["Uid"] == [str(NOBODY)] * 4
    assert fields["Gid"] == [str(NOBODY)] * 4
    assert fields["Groups"] in ([], [str(NOBODY)])
    assert fields["CapEff"] == ["0000000000000000"]
    assert fields["CapPrm"] == ["0000000000000000"]


def await_drop(pid: int) -> None:
    """Waits until a process is nobody."""
    eventually(lambda: status(pid)["Uid"][0] == str(NOBODY), "the drop of privileges")


def test_workers_are_inside_and_powerless(daemon: Detached, jail: Jail) -> None:
    workers = children(daemon.pid)
    assert len(workers) == 2
    for pid in workers:
        assert Path(f"/proc/{pid}/root").readlink() == jail.root
        assert jail.root in [link := Path(f"/proc/{pid}/cwd").readlink(), *link.parents]
        assert_powerless(pid)


def test_the_supervisor_stays_outside(daemon: Detached) -> None:
    assert Path(f"/proc/{daemon.pid}/root").readlink() == Path("/")
    assert status(daemon.pid)["Uid"][0] == "0"


def test_connections_are_served(daemon: Detached, certificates: Certificates, ports: list[int]) -> None:
    for _ in range(4):
        say_tls(ports[0], certificates.ca.cert)
    eventually(lambda: len(daemon.log.find("Connection closed")) == 4, "four closed connections")


def test_a_program_runs_inside_as_nobody(
    daemon: Detached, certificates: Certificates, ports: list[int]
) -> None:
    peer = open_tls(ports[1], certificates.ca.cert)
    words = read_all(peer).decode().split()
    peer.close()
    assert [word.partition("(")[0] for word in words] == ["uid=65534", "gid=65534", "groups=65534"]


def test_pid_file_and_log_are_inside(daemon: Detached, jail: Jail) -> None:
    assert jail.pid_file.read_text() == f"{daemon.pid}\n"
    assert stat.S_IMODE(jail.pid_file.stat().st_mode) == 0o644
    assert daemon.log.find("Accepting new connections")
    daemon.stop()
    assert not jail.pid_file.exists()
    assert sorted(path.name for path in jail.room.iterdir()) == ["daemon.log"]


def test_a_replaced_worker_is_jailed_too(
    daemon: Detached, jail: Jail, certificates: Certificates, ports: list[int]
) -> None:
    before = children(daemon.pid)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(set(children(daemon.pid)) - set(before)) == 2, "two new workers")
    for pid in children(daemon.pid):
        await_drop(pid)
        assert_powerless(pid)
        assert Path(f"/proc/{pid}/root").readlink() == jail.root
    say_tls(ports[0], certificates.ca.cert)


def test_without_workers_the_only_process_is_jailed(
    tmp_path: Path, certificates: Certificates, jail: Jail, ports: list[int]
) -> None:
    text = jail.options + "workers = 0\n" + jailed_services(certificates, *ports)
    with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
        assert Path(f"/proc/{daemon.pid}/root").readlink() == jail.root
        assert_powerless(daemon.pid)
        say_tls(ports[0], certificates.ca.cert)
        daemon.log.wait("Connection closed")
    assert not jail.pid_file.exists()


def test_numbers_do_as_well_as_names(culvert: Callable[..., Culvert], certificates: Certificates) -> None:
    leaf = certificates.server
    daemon = culvert(
        f"[echo]\naccept = 127.0.0.1:0\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n",
        options="setuid = 12345\nsetgid = 23456\n",
    )
    fields = status(children(daemon.pid)[0])
    assert fields["Uid"] == ["12345"] * 4
    assert fields["Gid"] == ["23456"] * 4
    assert "0" not in fields["Groups"]
    say_tls(daemon.port("echo"), certificates.ca.cert)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("chroot = /nonexistent/jail", "/nonexistent/jail"),
        ("chroot = /etc/passwd", "/etc/passwd"),
        ("setuid = no-such-user", "no-such-user"),
        ("setgid = no-such-group", "no-such-group"),
    ],
)
def test_what_cannot_be_done_ends_the_start(
    tmp_path: Path, certificates: Certificates, ports: list[int], option: str, reason: str
) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(
        f"foreground = yes\nsyslog = no\npid =\n{option}\n" + jailed_services(certificates, *ports)
    )
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert reason in finished.stderr
    assert "Traceback" not in finished.stderr
