"""`culvert status`, `connections`, `reload`, `stop` and `level` with real daemons, by both ways to them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, fixed_ports, needs_root, run
from .echo import EchoServer, echo, echo_service, finish, open_tls
from .harness import HEADER, PATIENCE, Culvert, eventually
from .peers import TlsPeer

Start = Callable[..., Culvert]

TOKEN = "correct-horse-battery"
DONE, FAILED, USAGE, NOT_RUNNING, UNKNOWN, NOT_YET = range(6)


class World:
    """A daemon with an endpoint and a pid file, and the commands about it."""

    def __init__(
        self, folder: Path, certificates: Certificates, port: int, target: int, workers: int
    ) -> None:
        self.folder = folder
        self.port = port
        self.trust = certificates.ca.cert
        self.admin = folder / "admin"
        self.pid_file = folder / "daemon.pid"
        self.services = echo_service(certificates, port, sink=f"connect = 127.0.0.1:{target}")
        header = HEADER.replace("pid =", f"pid = {self.pid_file}")
        self.daemon = Culvert(
            folder, self.services, header=f"{header}admin = {self.admin}\ndrainTimeout = 0\n", workers=workers
        )

    @property
    def file(self) -> str:
        return str(self.daemon.path)

    def open(self) -> TlsPeer:
        """A connection that stays open and has carried a line."""
        peer = open_tls(self.port, self.trust)
        echo(peer)
        return peer


def culvert_command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(command(*arguments), environment=environment)


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[World]:
    with EchoServer() as target, fixed_ports(1) as ports:
        world = World(tmp_path_factory.mktemp("commands"), certificates, ports[0], target.port, request.param)
        with world.daemon:
            yield world


def test_a_ready_daemon_is_shown(world: World) -> None:
    found = culvert_command("status", world.file)
    assert (found.returncode, found.stderr) == (DONE, "")
    assert f", pid {world.daemon.pid}: ready" in found.stdout
    assert "echo" in found.stdout


def test_a_status_is_one_document(world: World) -> None:
    found = json.loads(culvert_command("status", "--admin", world.admin, "--json").stdout)
    assert (found["running"], found["pid"], found["reason"]) == (True, world.daemon.pid, None)
    assert found["status"]["services"][0]["name"] == "echo"


def test_a_pid_file_tells_that_it_runs(world: World) -> None:
    found = culvert_command("status", "--pid-file", world.pid_file)
    assert (found.returncode, found.stdout.split(";")[0]) == (
        DONE,
        f"culvert runs, pid {world.daemon.pid}",
    )


def test_connections_are_listed_and_ended(world: World) -> None:
    peer = world.open()
    try:
        listed = culvert_command("connections", world.file, "--service", "echo")
        assert (listed.returncode, "TLSv1.3" in listed.stdout) == (DONE, True)
        document = json.loads(culvert_command("connections", world.file, "--json").stdout)
        ident = document["connections"][0]["id"]
        mark = world.daemon.log.mark()
        ended = culvert_command("connections", world.file, "--end", ident)
        assert (ended.returncode, ended.stdout) == (DONE, "1 connection(s) ended\n")
        world.daemon.await_log("Connection ended over the admin endpoint", since=mark)
    finally:
        peer.close()
    again = culvert_command("connections", world.file, "--end", ident)
    assert (again.returncode, "there is no such connection" in again.stderr) == (FAILED, True)


def test_by_its_pid_file_connections_go_to_the_log(world: World) -> None:
    mark = world.daemon.log.mark()
    found = culvert_command("connections", "--pid-file", world.pid_file)
    assert (found.returncode, "listed in its log" in found.stdout) == (DONE, True)
    world.daemon.await_log("Received SIGUSR2", since=mark)


def test_a_service_that_is_not_there_is_said(world: World) -> None:
    found = culvert_command("connections", world.file, "--service", "no/such?one")
    assert (found.returncode, "no service of this name" in found.stderr) == (FAILED, True)


def test_a_reload_is_waited_for(world: World) -> None:
    mark = world.daemon.log.mark()
    found = culvert_command("reload", world.file)
    assert (found.returncode, found.stdout) == (DONE, "Reloaded\n")
    assert world.daemon.log.find("Configuration successful", mark)


def test_a_reload_by_the_pid_file_is_a_signal(world: World) -> None:
    mark = world.daemon.log.mark()
    found = culvert_command("reload", "--pid-file", world.pid_file)
    assert (found.returncode, "was sent SIGHUP" in found.stdout) == (DONE, True)
    world.daemon.await_log("Configuration successful", since=mark)


def test_a_configuration_with_an_error_is_not_sent_for(world: World) -> None:
    world.daemon.configure(f"{world.services}nonsense = 1\n")
    mark = world.daemon.log.mark()
    try:
        found = culvert_command("reload", world.file)
        shown = culvert_command("status", world.file)
    finally:
        world.daemon.configure(world.services)
    assert (found.returncode, 'there is no option "nonsense"' in found.stderr) == (FAILED, True)
    assert not world.daemon.log.find("reload was asked for|SIGHUP", mark)
    assert shown.returncode == DONE


def test_a_reload_that_fails_says_why(world: World) -> None:
    lines = [line for line in world.services.splitlines() if not line.startswith("cert")]
    world.daemon.configure("\n".join([*lines, "cert = /none/at/all.pem", ""]))
    try:
        found = culvert_command("reload", world.file)
        shown = culvert_command("status", world.file)
    finally:
        world.daemon.configure(world.services)
        assert culvert_command("reload", world.file).returncode == DONE
    assert found.returncode == FAILED
    assert "The reload failed" in found.stderr
    assert "/none/at/all.pem" in found.stderr
    assert "1 failed (the last one)" in shown.stdout


def test_the_level_is_changed(world: World) -> None:
    found = culvert_command("level", "ERR".lower(), world.file)
    assert found.stdout == "The log level of everything is err until the next reload\n"
    assert culvert_command("level", "7", world.file, "--service", "echo").returncode == DONE
    wrong = culvert_command("level", "loud", world.file)
    assert (wrong.returncode, "loud is no level" in wrong.stderr) == (FAILED, True)


@needs_root
@pytest.mark.parametrize("told", [["status"], ["stop"]])
def test_who_may_not_connect_is_told(world: World, told: list[str]) -> None:
    world.folder.chmod(0o755)
    found = run(["setpriv", "--reuid=65534", "--clear-groups", *command(*told, "--admin", world.admin)])
    assert (found.returncode, "Permission denied" in found.stderr) == (UNKNOWN, True), found.stderr


def test_what_is_no_culvert_is_told(tmp_path: Path) -> None:
    with EchoServer() as stranger:
        found = culvert_command("status", "--admin", f"127.0.0.1:{stranger.port}")
    assert (found.returncode, "is no culvert" in found.stderr) == (UNKNOWN, True)


@pytest.mark.parametrize(
    ("told", "status"),
    [("status", NOT_RUNNING), ("connections", NOT_RUNNING), ("reload", NOT_RUNNING), ("stop", DONE)],
)
def test_nobody_there(tmp_path: Path, told: str, status: int) -> None:
    found = culvert_command(told, "--admin", tmp_path / "admin")
    assert found.returncode == status
    assert "listens at" in found.stdout + found.stderr


@pytest.mark.parametrize("told", ["status", "connections", "reload", "stop"])
def test_a_stale_pid_file_harms_nobody(tmp_path: Path, told: str) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        pid_file = tmp_path / "pid"
        pid_file.write_text(f"{stranger.pid}\n")
        found = culvert_command(told, "--pid-file", pid_file)
        assert found.returncode == (DONE if told == "stop" else NOT_RUNNING)
        assert f"is stale: process {stranger.pid} is no culvert" in found.stdout + found.stderr
    finally:
        stranger.communicate(timeout=PATIENCE)
    assert stranger.returncode == 0


def test_over_tcp_the_token_is_asked_for(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "wrong").write_text("wrong-horse-battery\n")
    with fixed_ports(1) as (port,):
        daemon = culvert(
            echo_service(certificates), options=f"admin = {port}\nadminTokenFile = {tmp_path}/token\n"
        )
        asked = ["status", "--admin", f"127.0.0.1:{port}"]
        assert culvert_command(*asked, "--token-file", tmp_path / "token").returncode == DONE
        assert culvert_command(*asked, CULVERT_ADMIN_TOKEN=TOKEN).returncode == DONE
        assert culvert_command("status", daemon.path).returncode == DONE
        wrong = culvert_command(*asked, "--token-file", tmp_path / "wrong")
        assert (wrong.returncode, "the token is wrong" in wrong.stderr) == (UNKNOWN, True)
        without = culvert_command(*asked)
        assert (without.returncode, "it wants a token: --token-file" in without.stderr) == (UNKNOWN, True)
        stopped = culvert_command("stop", "--admin", f"127.0.0.1:{port}", CULVERT_ADMIN_TOKEN=TOKEN)
        assert (stopped.returncode, stopped.stdout) == (DONE, "Stopped\n")
        daemon.stop()


def test_a_daemon_without_a_live_target_is_not_ready(
    culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    with fixed_ports(2) as (port, target):
        services = echo_service(certificates, port, sink=f"connect = 127.0.0.1:{target}")
        daemon = culvert(services, options=f"admin = {tmp_path / 'admin'}\n")
        with open_tls(port, certificates.ca.cert).sock:
            found = eventually(lambda: _not_ready(daemon), "a target that does not answer")
    assert found is not None
    assert "not ready" in found.stdout
    assert "service [echo] has no live target" in found.stdout
    assert f"127.0.0.1:{target} (down)" in found.stdout


def _not_ready(daemon: Culvert) -> subprocess.CompletedProcess[str] | None:
    found = culvert_command("status", daemon.path)
    return found if found.returncode == NOT_YET else None


def draining(folder: Path, certificates: Certificates, more: str) -> tuple[str, Path]:
    """The header of a daemon that drains for long, and its pid file."""
    pid_file = folder / "draining.pid"
    return f"{HEADER.replace('pid =', f'pid = {pid_file}')}drainTimeout = 60\n{more}", pid_file


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("by", ["endpoint", "pid-file"])
def test_a_stop_waits_for_connections(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int, by: str
) -> None:
    header, pid_file = draining(tmp_path, certificates, f"admin = {tmp_path / 'admin'}\n")
    daemon = culvert(echo_service(certificates), header=header, workers=workers)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    echo(peer)
    where: list[str | Path] = (
        ["--admin", tmp_path / "admin"] if by == "endpoint" else ["--pid-file", pid_file]
    )
    early = culvert_command("stop", *where, "--timeout", "1.5")
    assert early.returncode == NOT_YET
    assert "It has not ended within 1.5 s" in early.stderr
    assert ("Waiting for 1 connection(s)" in early.stdout) == (by == "endpoint")
    again = culvert_command("stop", "--admin", tmp_path / "admin", "--timeout", "0.1")
    assert again.returncode == NOT_YET
    finisher = threading.Timer(0.5, finish, [peer])
    finisher.start()
    assert daemon.wait() == 0
    finisher.join()
    daemon.stop()


@pytest.mark.parametrize("by", ["endpoint", "pid-file"])
def test_a_stop_now_ends_connections(
    culvert: Start, certificates: Certificates, tmp_path: Path, by: str
) -> None:
    header, pid_file = draining(tmp_path, certificates, f"admin = {tmp_path / 'admin'}\n")
    daemon = culvert(echo_service(certificates), header=header)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    echo(peer)
    where: list[str | Path] = (
        ["--admin", tmp_path / "admin"] if by == "endpoint" else ["--pid-file", pid_file]
    )
    found = culvert_command("stop", *where, "--now")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (DONE, "Stopped"), found.stderr
    daemon.stop(signal.SIGTERM, status=4)
    peer.close()


@needs_root
def test_a_daemon_in_a_jail_is_found_by_its_configuration(
    culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    jail = tmp_path / "jail"
    (jail / "run").mkdir(parents=True)
    header = (
        HEADER.replace("pid =", "pid = /run/d.pid") + f"chroot = {jail}\nsetuid = nobody\ndrainTimeout = 0\n"
    )
    services = echo_service(certificates, sink="connect = 127.0.0.1:1")
    daemon = culvert(services, header=header)
    found = culvert_command("status", daemon.path)
    assert (found.returncode, f"pid {daemon.pid}" in found.stdout) == (DONE, True)
    assert culvert_command("stop", daemon.path).returncode == DONE
    daemon.stop()
