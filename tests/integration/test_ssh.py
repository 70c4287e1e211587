"""ssh and rsync through a tunnel at both ends: OpenSSH's server, and a tree that is compared by digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LogFile, command, fixed_ports
from .harness import HEADER, PATIENCE, Culvert, require

TRANSFER = 60.0
"""Seconds for the whole tree, on a busy machine."""


class SshServer:
    """sshd in the foreground on a port of its own, and how its clients are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("host", "user"):
            subprocess.run(
                [require("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
                timeout=PATIENCE,
            )
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "known").write_text(f"through-the-tunnel {(folder / 'host.pub').read_text()}")
        self.log = LogFile(folder / "sshd.log")

    @contextlib.contextmanager
    def running(self) -> Iterator[SshServer]:
        """Serves until the end; `port` is where."""
        with fixed_ports(1) as ports:
            self.port = ports[0]
            path = self.folder / "sshd_config"
            path.write_text(
                f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.folder / 'host'}\nPidFile none\n"
                f"AuthorizedKeysFile {self.folder / 'authorized'}\nStrictModes no\nUsePAM no\n"
                "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            )
            with self.log.path.open("wb") as log:
                argv = _with_its_folder([require("sshd"), "-D", "-e", "-f", str(path)])
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
            try:
                self.log.wait("Server listening on")
                yield self
            finally:
                process.terminate()
                process.wait(PATIENCE)

    def client(self, proxy: str) -> list[str]:
        """ssh by way of a command; the host is to follow."""
        options = {
            "IdentityFile": self.folder / "user",
            "UserKnownHostsFile": self.folder / "known",
            "GlobalKnownHostsFile": os.devnull,
            "HostKeyAlias": "through-the-tunnel",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "ProxyCommand": proxy,
            "User": pwd.getpwuid(os.getuid()).pw_name,
        }
        return [
            require("ssh"),
            "-F",
            "none",
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
        ]


def _with_its_folder(argv: list[str]) -> list[str]:
    """As root, sshd needs a folder in /run that its package's service makes: here one of its own."""
    if os.geteuid() != 0:
        return argv
    prepare = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"'
    return [require("unshare"), "--mount", "sh", "-c", prepare, "sh", *argv]


class Way:
    """sshd behind a server tunnel, and two ways to it: a client tunnel, and one in inetd mode."""

    def __init__(self, sshd: SshServer, tunnels: Culvert, inetd: Path) -> None:
        self.sshd = sshd
        self.by_tunnel = sshd.client(f"{require('nc')} 127.0.0.1 {tunnels.port('client')}")
        self.by_inetd = sshd.client(shlex.join(command("run", inetd)))


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Way]:
    """One server and one pair of tunnels for all tests of this module."""
    folder = tmp_path_factory.mktemp("ssh")
    leaf = certificates.server
    client = f"client = yes\nCAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"
    with SshServer(folder).running() as sshd, fixed_ports(1) as ports:
        services = (
            f"[server]\naccept = 127.0.0.1:{ports[0]}\nconnect = 127.0.0.1:{sshd.port}\n"
            f"cert = {leaf.cert}\nkey = {leaf.key}\n"
            f"[client]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{ports[0]}\n{client}"
        )
        inetd = folder / "inetd.conf"
        inetd.write_text(
            f"{HEADER}{client}connect = 127.0.0.1:{ports[0]}\n".replace("debug = 7", "debug = 4")
        )
        with Culvert(folder, services, workers=2) as tunnels:
            yield Way(sshd, tunnels, inetd)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small files in many folders, and a few large ones."""
    top = tmp_path_factory.mktemp("tree")
    source = random.Random(4)
    for folder in range(40):
        inner = top / f"{folder % 7}" / f"{folder}"
        inner.mkdir(parents=True)
        for number in range(50):
            (inner / f"{number}").write_bytes(source.randbytes(source.randrange(4000)))
    for number in range(3):
        (top / f"large {number}").write_bytes(source.randbytes(12_000_000 + number))
    (top / "link").symlink_to("large 0")
    return top


def digests(top: Path) -> dict[str, str]:
    """Every file below, by its path."""
    return {
        str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in top.rglob("*")
        if path.is_file()
    }


def rsync(shell: list[str], *arguments: str | Path) -> None:
    """Copies by digests and not by times; `shell` is how the other end is reached."""
    done = subprocess.run(
        [require("rsync"), "-a", "--checksum", "-e", shlex.join(shell), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TRANSFER,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("route", ["by_tunnel", "by_inetd"])
def test_a_command_with_its_input_output_and_status(way: Way, route: str) -> None:
    data = random.Random(9).randbytes(3_000_000)
    done = subprocess.run(
        [*getattr(way, route), "host", "sha256sum; echo to stderr >&2; exit 7"],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert done.stderr == b"to stderr\n"


@pytest.mark.parametrize("route", ["by_tunnel", "by_inetd"])
def test_a_tree_goes_there_and_comes_back(way: Way, route: str, tree: Path, tmp_path: Path) -> None:
    shell: list[str] = getattr(way, route)
    there, back = tmp_path / "there", tmp_path / "back"
    rsync(shell, f"{tree}/", f"host:{there}/")
    rsync(shell, f"host:{there}/", f"{back}/")
    expected = digests(tree)
    assert len(expected) == 2004
    assert digests(there) == expected
    assert digests(back) == expected
