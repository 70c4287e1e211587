"""How a command finds its daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from culvert.address import HostPort, UnixPath
from culvert.cli.daemon.whereabouts import TOKEN_VARIABLE, Asked, Whereabouts, locate
from culvert.errors import ConfigurationError


@pytest.fixture(autouse=True)
def without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def located(tmp_path: Path, text: str, **asked: str) -> Whereabouts:
    """What a configuration with this text leads to."""
    path = tmp_path / "culvert.conf"
    path.write_text(text)
    return locate(Asked(file=str(path), **asked))


def test_a_configuration_names_both(tmp_path: Path) -> None:
    found = located(tmp_path, "admin = /run/a\npid = /run/b\n[x]\nadmin = 9\n")
    assert found.client is not None
    assert (found.client.address, str(found.pid_file)) == (UnixPath("/run/a"), "/run/b")


def test_a_pid_file_is_inside_the_jail(tmp_path: Path) -> None:
    assert str(located(tmp_path, "chroot = /srv/jail\npid = /run/b\n").pid_file) == "/srv/jail/run/b"


def test_errors_elsewhere_do_not_matter(tmp_path: Path) -> None:
    found = located(tmp_path, "pid = /run/b\ndebugg = 9\nsetuid\n[x\n")
    assert found.client is None
    assert found.pid_file is not None


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("9100", HostPort("localhost", 9100)),
        ("0.0.0.0:9100", HostPort("127.0.0.1", 9100)),
        (":::9100", HostPort("::1", 9100)),
        ("192.0.2.7:9100", HostPort("192.0.2.7", 9100)),
    ],
)
def test_what_listens_everywhere_is_asked_here(tmp_path: Path, written: str, asked: HostPort) -> None:
    client = located(tmp_path, f"admin = {written}\n").client
    assert client is not None
    assert client.address == asked


def test_the_command_line_wins(tmp_path: Path) -> None:
    found = located(tmp_path, "admin = /run/a\npid = /run/b\n", admin="9100", pid_file="/run/c")
    assert found.client is not None
    assert (found.client.address, str(found.pid_file)) == (HostPort("localhost", 9100), "/run/c")


def test_without_a_file_no_configuration_is_read() -> None:
    found = locate(Asked(pid_file="/run/c"))
    assert (found.client, found.file, str(found.pid_file)) == (None, None, "/run/c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("output = x\n", "sets neither 'admin' nor 'pid'"),
        ("admin = 0\n", "port 0"),
        ("admin = :0x\n", "takes"),
        ("admin = 9100\nadminTokenFile = /none/at/all\n", "Cannot read the token"),
    ],
)
def test_what_leads_nowhere_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        located(tmp_path, text)


def test_a_bad_address_on_the_command_line_is_said() -> None:
    with pytest.raises(ConfigurationError, match="--admin takes"):
        locate(Asked(admin="no port"))


@pytest.mark.parametrize("content", ["", "two words", "x" * 5000, "\u00e4"])
def test_a_file_without_a_token_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="holds no token"):
        locate(Asked(admin="9100", token_file=str(path)))
