"""The examples of the library do what they say, without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

OUTPUT = {
    "tls_front.py": "hello world over TLSv1.3\n1 connection\n",
    "mutual_authentication.py": (
        "alice: for alice only\nnobody: refused\nalice, after the change: refused\n"
    ),
}


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_says_what_it_should(name: str, tmp_path: Path) -> None:
    assert run(tmp_path, str(EXAMPLES / name)) == (0, OUTPUT[name], "")


def test_the_example_of_a_fixture_passes(tmp_path: Path) -> None:
    status, said, _ = run(
        tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_redis_tunnel.py")
    )
    assert (status, "1 passed" in said) == (0, True), said


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        *OUTPUT,
        "certificates.py",
        "test_redis_tunnel.py",
    }
