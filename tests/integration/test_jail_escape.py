"""What a jailed worker could use to get out: links it plants for root to follow, and descriptors it inherits.

The attacker is a worker that was taken over: nobody, in a jail whose directory is nobody's, as Debian lays
it out. Root must neither write nor create anything outside on its behalf.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import NOBODY, Detached, Jail, children, command, fixed_ports, needs_root
from .harness import eventually

pytestmark = needs_root


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is free for the daemon."""
    with fixed_ports(1) as ports:
        yield ports[0]


@pytest.fixture
def jail(tmp_path: Path) -> Jail:
    """A jail that belongs to the user whom the workers run as."""
    jail = Jail(tmp_path)
    for directory in (jail.root, jail.room):
        os.chown(directory, NOBODY, NOBODY)
    return jail


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of root's, outside of the jail."""
    directory = tmp_path / "outside"
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
def text(certificates: Certificates, jail: Jail, port: int) -> str:
    """A configuration of one service in the jail, with the log and the pid file inside."""
    leaf = certificates.server
    return (
        f"{jail.options}workers = 1\ncert = {leaf.cert}\nkey = {leaf.key}\n"
        f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/busybox\nexecArgs = busybox cat\n"
    )


def detached(text: str, jail: Jail, argv: list[str] | None = None) -> Detached:
    """A daemon in the jail, not yet started."""
    folder = jail.root.parent
    return Detached(folder, text, pid_file=jail.pid_file, log_file=jail.log_file, argv=argv)


def assert_refused(daemon: Detached) -> None:
    """Asserts that the daemon does not start, by the operator's fault."""
    try:
        assert daemon.launch().returncode == 1
    finally:
        daemon.kill()


class TestLinks:
    @pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
    def test_the_log_is_not_opened_through_one(
        self, text: str, jail: Jail, outside: Path, number: signal.Signals
    ) -> None:
        with detached(text, jail) as daemon:
            kept = jail.room / "kept.log"
            jail.log_file.rename(kept)
            jail.log_file.symlink_to(outside / "target")
            daemon.send_signal(number)
            eventually(lambda: f"Received {number.name}" in kept.read_text(), "the signal in the log")
            eventually(lambda: "Cannot" in kept.read_text(), "the refusal in the log")
            assert not list(outside.iterdir())

    def test_the_log_is_not_opened_through_a_linked_folder(
        self, text: str, jail: Jail, outside: Path
    ) -> None:
        jail.room.rmdir()
        jail.room.symlink_to(outside)
        assert_refused(detached(text.replace("pid = /run/daemon.pid", "pid ="), jail))
        assert not list(outside.iterdir())

    def test_the_pid_is_not_written_through_one(self, text: str, jail: Jail, outside: Path) -> None:
        (jail.root / "planted").symlink_to(outside)
        assert_refused(detached(text.replace("/run/daemon.pid", "/planted/daemon.pid"), jail))
        assert not list(outside.iterdir())


class TestDescriptors:
    def test_none_of_the_callers_stays_open(self, text: str, jail: Jail, outside: Path) -> None:
        shell = ["/bin/sh", "-c", f'exec "$@" 7<"{outside}"', "sh", *command("run")]
        with detached(text, jail, shell) as daemon:
            assert str(outside) not in open_paths(daemon.pid)
            assert str(outside) not in open_paths(children(daemon.pid)[0])

    def test_the_configurations_own_is_closed_when_it_is_read(self, text: str, jail: Jail) -> None:
        stunnel = shlex.join(command("stunnel", "-fd", "7"))
        with detached(text, jail, ["/bin/sh", "-c", f'exec {stunnel} 7<"$1"', "sh"]) as daemon:
            assert str(daemon.path) not in open_paths(children(daemon.pid)[0])

    def test_a_worker_has_no_file_but_the_log(self, text: str, jail: Jail) -> None:
        with detached(text, jail) as daemon:
            paths = open_paths(children(daemon.pid)[0])
            files = {path for path in paths if path.startswith("/") and not path.startswith("/memfd:")}
            assert files == {os.devnull, str(jail.log_file)}


def open_paths(pid: int) -> set[str]:
    """What the descriptors of a process lead to."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found
