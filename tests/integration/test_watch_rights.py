"""`watch = yes` with chroot and setuid, and what the process that watches may do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import NOBODY, Detached, Jail, fixed_ports, needs_root, status
from .echo import finish, open_tls
from .watching import ACCEPTING, WATCHING, Files, Start, service, start, watcher

pytestmark = needs_root

PROGRAM = "exec = /bin/busybox\nexecArgs = busybox cat\n"


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Files:
    """Files in a folder that root alone can enter."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    files = Files(folder)
    files.install(certificates.server)
    return files


def test_a_jailed_daemon_takes_new_files(tmp_path: Path, certificates: Certificates, files: Files) -> None:
    jail = Jail(tmp_path)
    renewed = certificates.ca.leaf("jailed", hosts=("localhost",))
    with fixed_ports(1) as (port,):
        text = f"{jail.options}watch = yes\n" + service(files, port).replace("exec = /bin/cat\n", PROGRAM)
        with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
            daemon.log.wait(WATCHING)
            mark = daemon.log.mark()
            files.install(renewed)
            daemon.log.wait(ACCEPTING, since=mark)
            peer = open_tls(port, certificates.ca.cert)
            seen = peer.engine.get_peer_certificate()
            finish(peer)
            assert seen is not None
            assert seen.to_cryptography() == renewed.certificate


def test_the_process_that_watches_can_do_little(culvert: Start, files: Files) -> None:
    daemon = start(culvert, service(files))
    pid = watcher(daemon)
    assert status(pid)["Uid"] == status(pid)["Gid"] == [str(NOBODY)] * 4
    assert status(pid)["Groups"] == []
    assert int(status(pid)["CapEff"][0], 16) == 0
    held = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115
    assert sum(target.startswith("socket:") for target in held) == 1, held
    assert not [target for target in held if target.startswith("/") and target != os.devnull], held


@pytest.mark.parametrize("chroot", [True, False])
def test_one_process_says_what_it_can_no_longer_read(
    culvert: Start, tmp_path: Path, files: Files, chroot: bool
) -> None:
    (tmp_path / "jail").mkdir()
    options = f"chroot = {tmp_path}/jail\n" if chroot else ""
    daemon = culvert(
        service(files).replace("exec = /bin/cat", "connect = 127.0.0.1:1"),
        options=f"{options}watch = yes\nsetuid = nobody\nsetgid = nogroup\n",
        workers=0,
    )
    daemon.await_log(
        r"LOG4\[main\]: Changed files are not noticed: .*" + ("chroot" if chroot else str(files.key))
    )
    assert not daemon.log.find(WATCHING)
