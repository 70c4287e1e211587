"""Starts on a machine that is not as it should be: no resolver, fewer capabilities than root has."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import Detached, Jail, command, fixed_ports, needs_root
from .echo import echo_service, say_tls
from .harness import Culvert, require

pytestmark = needs_root

Start = Callable[..., Culvert]

DNS_PORT = 53
SOON = 5.0
"""Seconds that no start needs, and less than the resolver waits for one answer and another try."""


@pytest.fixture
def silence() -> Iterator[str]:
    """The address of a name server that never answers."""
    address = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, DNS_PORT))
        yield address


@pytest.fixture
def blackout(tmp_path: Path, silence: str) -> list[str]:
    """A command that runs another one with that name server as the only one."""
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(f"nameserver {silence}\n")
    mount = f"mount --make-rprivate / && mount --bind '{configuration}' /etc/resolv.conf"
    return [require("unshare"), "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]


@pytest.fixture(params=["at large", "jailed"])
def jail(request: pytest.FixtureRequest, tmp_path: Path) -> Jail | None:
    """A directory to be jailed in, or none."""
    return Jail(tmp_path) if request.param == "jailed" else None


@pytest.mark.parametrize("workers", [0, 2])
def test_it_does_not_wait_for_a_name_server_that_is_down(
    culvert: Start, certificates: Certificates, blackout: list[str], workers: int, jail: Jail | None
) -> None:
    options = f"chroot = {jail.root}\nsetuid = nobody\nsetgid = nogroup\n" if jail else ""
    service = echo_service(certificates, sink="exec = /bin/busybox\nexecArgs = busybox cat")
    before = time.monotonic()
    daemon = culvert(service, workers=workers, options=options, prefix=blackout)
    assert time.monotonic() - before < SOON
    say_tls(daemon.port("echo"), certificates.ca.cert)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("capability", ["sys_chroot", "setuid", "setgid"])
def test_a_capability_that_root_lacks_is_the_operators_matter(
    tmp_path: Path, certificates: Certificates, workers: int, capability: str
) -> None:
    jail = Jail(tmp_path)
    leaf = certificates.server
    with fixed_ports(1) as [port]:
        text = (
            f"{jail.options}workers = {workers}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/busybox\n"
        )
        drop = f"-{capability}"
        prefix = ["setpriv", "--bounding-set", drop, "--inh-caps", drop]
        argv = [*prefix, *command("run")]
        daemon = Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file, argv=argv)
        try:
            launched = daemon.launch()
        finally:
            daemon.kill()
    assert launched.returncode == 1
    assert "Operation not permitted" in launched.stderr
    assert "Traceback" not in launched.stderr
    assert daemon.log.find("LOG3.*Operation not permitted")
    assert not daemon.log.find("fault of culvert")
    assert not jail.pid_file.exists()
