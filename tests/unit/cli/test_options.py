"""`culvert options`: every option is listed, plainly for a pipe and drawn for a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from culvert.cli.option_text import availability_text, default_text
from culvert.cli.options import show_option, show_table
from culvert.config import OPTIONS, Availability, Option

from .command import culvert

BY_NAME = {option.name: option for option in OPTIONS}


def test_the_plain_list_has_a_line_for_each_option() -> None:
    result = culvert("options", terminal_width=40)
    assert (result.returncode, result.stderr) == (0, "")
    listed = [line.split()[0] for line in result.stdout.splitlines() if " = " in line]
    assert sorted(listed) == sorted(option.name for option in OPTIONS)
    assert "\x1b" not in result.stdout


def test_a_terminal_gets_tables() -> None:
    screen = io.StringIO()
    show_table(Console(file=screen, force_terminal=True, width=120))
    text = screen.getvalue()
    assert "\x1b[" in text
    for option in OPTIONS:
        assert option.name in text


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_can_be_explained(option: Option) -> None:
    page = io.StringIO()
    show_option(option, Console(file=page, width=40))
    assert page.getvalue().startswith(f"{option.name}\n")
    assert option.help in page.getvalue()
    assert (availability_text(option) == "") == (option.availability is Availability.AVAILABLE)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("accept", ""),
        ("ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"),
        ("debug", "daemon.notice"),
        ("failover", "prio"),
        ("options", "NO_SSLv2, NO_SSLv3"),
        (
            "socket",
            "a:SO_REUSEADDR=yes, "
            "l:TCP_NODELAY=yes, l:SO_KEEPALIVE=yes, l:TCP_KEEPIDLE=120, l:TCP_KEEPINTVL=30, l:TCP_KEEPCNT=4, "
            "r:TCP_NODELAY=yes, r:SO_KEEPALIVE=yes, r:TCP_KEEPIDLE=120, r:TCP_KEEPINTVL=30, r:TCP_KEEPCNT=4",
        ),
        ("sslVersionMin", "TLSv1.2"),
        ("syslog", "yes"),
        ("TIMEOUTidle", "43200"),
        ("workers", "auto"),
    ],
)
def test_a_default_is_shown_as_a_file_would_write_it(name: str, default: str) -> None:
    assert default_text(BY_NAME[name]) == default


def test_one_option_by_another_of_its_names() -> None:
    result = culvert("options", "CURVE")
    assert result.returncode == 0
    assert result.stdout.startswith("curves\n")


def test_an_unknown_option_gets_the_nearest_name() -> None:
    result = culvert("options", "conect")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == '[!] No option is named "conect" (did you mean "connect"?)\n'
