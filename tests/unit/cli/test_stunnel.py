"""stunnel's own command line: its flags, its listings, and that standard output stays empty."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from culvert.config import OPTIONS, SOCKET_OPTIONS, TLS_OPTIONS, Availability

from .command import culvert, execute


@pytest.mark.parametrize("flag", ["-help", "-HELP", "-version", "-sockets", "-Options"])
def test_a_listing_goes_to_standard_error_alone(flag: str) -> None:
    result = culvert("stunnel", flag, "ignored")
    assert result.returncode == 0
    assert result.stdout == ""
    assert result.stderr


def test_help_lists_what_this_version_has_and_nothing_else() -> None:
    lines = culvert("stunnel", "-help").stderr.splitlines()
    listed = {match[1] for line in lines if (match := re.match(r"(\w+) *= \S", line))}
    assert listed == {option.name for option in OPTIONS if option.availability is Availability.AVAILABLE}


def test_help_has_the_columns_that_programs_look_for() -> None:
    lines = culvert("stunnel", "-help").stderr.splitlines()
    assert any(line.startswith("checkHost              = ") for line in lines)
    assert any(line.startswith("foreground             = ") and "quiet" in line for line in lines)


def test_version_shows_the_defaults() -> None:
    lines = culvert("stunnel", "-version").stderr.splitlines()
    assert "TIMEOUTidle            = 43200" in lines
    assert "debug                  = daemon.notice" in lines
    assert "options                = NO_SSLv2" in lines
    assert any(line.startswith("Running  with OpenSSL ") for line in lines)


def test_sockets_shows_a_row_for_each_option() -> None:
    stderr = culvert("stunnel", "-sockets").stderr
    for name in SOCKET_OPTIONS:
        assert f"\n    {name:<20}|" in stderr
    assert re.search(r"TCP_NODELAY +\| +-- +\| +yes +\| +yes", stderr)


def test_options_lists_every_name() -> None:
    lines = culvert("stunnel", "-options").stderr.splitlines()
    assert {f"options = {name}" for name in TLS_OPTIONS} <= set(lines)


def test_a_file_is_named_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "real.conf").write_text("[tunnel]\naccpt = 1\n")
    (tmp_path / "link.conf").symlink_to("real.conf")
    result = culvert("stunnel", str(tmp_path / "link.conf"))
    assert f"[.] Reading configuration from file {tmp_path}/real.conf\n" in result.stderr
    assert f'[!] {tmp_path}/real.conf:2: "accpt = 1": ' in result.stderr


@pytest.mark.parametrize("name", ["missing.conf", "-fast"])
def test_a_file_that_does_not_exist_is_refused(name: str) -> None:
    result = culvert("stunnel", name)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f'[!] Invalid configuration file name "{name}"',
        "[!] No such file or directory (2)",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-fd"], "No file descriptor specified"),
        (["-fd", "three"], "Invalid file descriptor number"),
        (["-FD", "-1"], "Invalid file descriptor number"),
    ],
)
def test_a_wrong_descriptor_gets_the_syntax(arguments: list[str], reason: str) -> None:
    result = culvert("stunnel", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    first, *rest = result.stderr.splitlines()
    assert first == f"[!] {reason}"
    assert rest[0] == "[.] Syntax:"


def test_a_configuration_is_read_from_a_descriptor(tmp_path: Path) -> None:
    (tmp_path / "broken.conf").write_text("[tunnel]\naccpt = 1\n")
    command = f"exec {sys.executable} -m culvert stunnel -fd 7 7<{tmp_path / 'broken.conf'}"
    result = execute(["sh", "-c", command])
    assert (result.returncode, result.stdout) == (1, "")
    assert "[.] Reading configuration from descriptor 7" in result.stderr
    assert "accpt = 1" in result.stderr


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    result = culvert("stunnel", "-fd", "99")
    assert (result.returncode, result.stdout) == (1, "")
    assert "99" in result.stderr
    assert "Traceback" not in result.stderr
