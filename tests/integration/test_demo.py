"""The demo, which is the classic set-up of a tunnel: it comes out right, says when not, leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from .harness import eventually, marked, require

PATIENCE = 60.0
"""Seconds for a demo that takes two: three daemons are started in it, and the machine may be busy."""

SERVICES = ("echo-by-address", "echo-by-name", "echo-foreign")


class Demo:
    """`culvert demo` with a temporary folder of its own; what it starts can be told by its environment."""

    def __init__(self, folder: Path, *prefix: str, **environment: str) -> None:
        self.folder = folder
        self.mark = f"CULVERT_TEST_DEMO={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "culvert", "demo"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "80", name: value, **environment},
        )

    def finish(self) -> tuple[int, str]:
        """The exit status and the output, once it has ended without a word on standard error."""
        output, complaints = self.process.communicate(timeout=PATIENCE)
        assert complaints == ""
        return self.process.returncode, output

    def assert_nothing_left(self) -> None:
        assert list(self.folder.iterdir()) == []
        eventually(lambda: not marked(self.mark), "the end of every process")


def assert_all_right(status: int, output: str) -> None:
    lines = output.splitlines()
    assert lines[-1].startswith("Verdict: all right."), output
    assert status == 0
    for service in SERVICES:
        assert f"  answer         'Hello through {service}!\\n'" in lines
        assert lines.count(f"[{service}]") == 2
    assert lines.count("  encrypted      yes") == 3
    assert lines.count("  refused        yes") == 3
    assert len(re.findall(r"negotiated     TLSv1\.3 ciphersuite: TLS_\w+ .*group: \w+", output)) == 3
    assert (
        len(re.findall(r"log .*LOG4\[\d+\]: Rejected by CERT at depth=0: CN=Culvert demo server", output))
        == 3
    )
    assert len(re.findall(r"log .*LOG3\[\d+\]: .*certificate verify failed", output)) == 3
    assert "\x1b" not in output


def test_the_demo_comes_out_right_and_leaves_nothing(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    status, output = demo.finish()
    assert_all_right(status, output)
    assert ("chroot = " in output) == (os.geteuid() == 0)
    demo.assert_nothing_left()


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the demo runs like this anyhow")
def test_the_demo_does_without_a_jail_where_it_may_not_have_one(tmp_path: Path) -> None:
    setpriv = require("setpriv")
    demo = Demo(tmp_path, setpriv, "--bounding-set=-sys_chroot", "--inh-caps=-sys_chroot")
    status, output = demo.finish()
    assert_all_right(status, output)
    assert "chroot = " not in output
    assert "without chroot and setuid here:" in output
    assert "a trial in the jail failed: PermissionError" in output
    demo.assert_nothing_left()


def test_a_demo_that_cannot_be_given_says_so(tmp_path: Path) -> None:
    demo = Demo(tmp_path, PATH=str(tmp_path))
    status, output = demo.finish()
    assert status == 1
    assert output.splitlines()[-1].startswith("Verdict: FAILED (1 step(s)): no `cat` on the PATH")
    demo.assert_nothing_left()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_demo_that_is_broken_off_leaves_nothing(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    demo = Demo(tmp_path)
    assert demo.process.stdout is not None
    for line in demo.process.stdout:
        if line == f"[{SERVICES[0]}]\n":
            break
    os.killpg(demo.process.pid, number)  # as a terminal does
    assert demo.finish()[0] == status
    demo.assert_nothing_left()
