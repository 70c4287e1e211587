"""Where the admin endpoint is, and which token counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from culvert.cli.admin_client import TOKEN_VARIABLE, find_endpoint
from culvert.errors import ConfigurationError

SERVICE = "[s]\nclient = yes\naccept = 1\nconnect = 2\n"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("of-the-file\n")
    return path


def configuration(folder: Path, lines: str) -> str:
    path = folder / "culvert.conf"
    path.write_text(f"{lines}\n{SERVICE}")
    return str(path)


def test_the_configuration_says_where_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "of-the-environment")
    found = find_endpoint(configuration(tmp_path, "admin = 9100\nadminToken = of-the-option"), None, None)
    assert (str(found.address), found.token) == ("localhost:9100", "of-the-option")
    assert "of-the-option" not in repr(found)


def test_the_tokens_file_is_read(tmp_path: Path, token: Path) -> None:
    found = find_endpoint(configuration(tmp_path, f"admin = 9100\nadminTokenFile = {token}"), None, None)
    assert found.token == "of-the-file"


def test_the_file_that_is_given_counts_first(tmp_path: Path, token: Path) -> None:
    path = configuration(tmp_path, "admin = 9100\nadminToken = of-the-option")
    assert find_endpoint(path, None, str(token)).token == "of-the-file"


def test_an_address_takes_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "of-the-environment")
    found = find_endpoint(None, "192.0.2.1:9100", None)
    assert (str(found.address), found.token) == ("192.0.2.1:9100", "of-the-environment")


def test_without_any_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    found = find_endpoint(None, "/run/culvert/admin", None)
    assert (str(found.address), found.token) == ("/run/culvert/admin", None)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_token_that_cannot_be_read_is_said_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"{path}"):
        find_endpoint(None, "9100", str(path))
