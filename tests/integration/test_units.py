"""The unit files in packaging/systemd: as systemd reads and judges them, and a daemon behind their walls."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import children, fixed_ports, needs_root, status
from .echo import echo_service, say_tls
from .harness import PATIENCE, Culvert, require

Start = Callable[..., Culvert]

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "packaging" / "systemd"
SERVICES = ["culvert.service", "culvert@.service"]
SANDBOX = Path(__file__).parent / "unit_sandbox.py"

INTO_THE_JOURNAL = (
    "import os, sys; s = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{s.st_dev}:{s.st_ino}'; "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs systemd-analyze."""
    return subprocess.run(
        [require("systemd-analyze"), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        check=False,
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists: `culvert` is where the packager, or pip, puts it."""
    program = tmp_path / "culvert"
    shutil.copy("/bin/true", program)
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    for name in SERVICES:
        path = folder / name
        path.write_text(path.read_text().replace("ExecStart=culvert ", f"ExecStart={program} "))
    return folder


@pytest.mark.parametrize(
    "name", ["culvert.service", "culvert@.service", "culvert@web.service", "culvert.socket"]
)
def test_systemd_understands_it(units: Path, name: str) -> None:
    path = units / name
    if "@web" in name:  # an instance of the template
        shutil.copy(units / "culvert@.service", path)
    verified = analyze("verify", path)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_its_exposure_is_what_the_documentation_says(units: Path, name: str) -> None:
    documented = re.search(r"exposure level is (\d\.\d)", (ROOT / "docs" / "operations.md").read_text())
    assert documented is not None
    judged = analyze("security", "--offline=true", units / name)
    said = re.search(r"exposure level for \S+: (\S+) ", judged.stdout)
    assert said is not None, judged.stderr
    assert said[1] == documented[1], judged.stdout


def test_both_services_have_the_same_walls() -> None:
    one, other = ((UNITS / name).read_text().partition("UMask=")[2] for name in SERVICES)
    assert one == other


def test_the_sockets_name_is_documented_as_a_services() -> None:
    assert "FileDescriptorName=web\n" in (UNITS / "culvert.socket").read_text()


@needs_root
def test_a_daemon_does_all_its_work_behind_the_walls(culvert: Start, certificates: Certificates) -> None:
    """Ports, keys, workers of another user in a jail, a program, a reload, the watching process, a stop."""
    require("systemd-analyze")
    with fixed_ports(1) as (port,):
        services = echo_service(certificates, port)
        daemon = culvert(
            services,
            options="setuid = nobody\nsetgid = nogroup\nwatch = yes\n",
            workers=2,
            prefix=[sys.executable, str(SANDBOX), str(UNITS / "culvert.service")],
        )
        daemon.await_log("watches .* for changes")
        assert status(daemon.pid)["NoNewPrivs"] == ["1"]
        assert status(daemon.pid)["Seccomp"] == ["2"]
        say_tls(port, certificates.ca.cert)
        workers = children(daemon.pid)
        mark = daemon.reload(services)
        daemon.await_log("Accepting new connections", since=mark)
        say_tls(port, certificates.ca.cert)
        stuck = next(pid for pid in children(daemon.pid) if pid not in workers)
        os.kill(stuck, signal.SIGSTOP)
        daemon.send_signal(signal.SIGTERM)
        daemon.await_log("did not stop in time and is killed")  # as root, which needs CAP_KILL for it
        assert daemon.wait() == 0
        daemon.stopped = True


@needs_root
def test_the_jail_closes_behind_the_walls(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    require("systemd-analyze")
    jail = tmp_path / "jail"
    jail.mkdir()
    daemon = culvert(
        echo_service(certificates, sink="connect = 127.0.0.1:9"),
        options=f"chroot = {jail}\nsetuid = nobody\nsetgid = nogroup\n",
        prefix=[sys.executable, str(SANDBOX), str(UNITS / "culvert.service")],
    )
    (worker,) = children(daemon.pid)
    assert Path(f"/proc/{worker}/root").readlink() == jail
    daemon.stop()


def test_the_journal_gets_levels_and_no_times(culvert: Start, certificates: Certificates) -> None:
    with fixed_ports(1) as (port,):
        daemon = culvert(
            echo_service(certificates, port),
            prefix=[sys.executable, "-c", INTO_THE_JOURNAL],
            workers=2,
        )
        say_tls(port, certificates.ca.cert)
        daemon.stop()
    assert len(daemon.log.lines) > 5
    for line in daemon.log.lines:
        assert re.match(r"<([0-7])>LOG\1\[\w+\]: ", line), line
