"""How lines become a tree: scopes, defaults, repetition, inetd mode, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from culvert import config
from culvert.address import HostPort
from culvert.errors import ConfigurationError, Location

from .reading import CLIENT, SERVER, errors, findings, service


def test_names_are_without_case() -> None:
    found = service("ACCEPT = 1\nConnect = 2\ncErT = a.pem\ntimeoutIDLE = 9")
    assert (found.accept, found.timeout_idle) == (HostPort(None, 1), 9.0)


def test_comment_behind_a_value_that_holds_no_space() -> None:
    found = service("accept = 5010   # local end\nconnect = host:1\t; no\ncert = a ; b\n")
    assert found.accept == HostPort(None, 5010)
    assert found.connect == (HostPort("host", 1),)
    assert found.cert == "a ; b"


def test_defaults_stand_under_the_services() -> None:
    configuration = config.loads(
        "cert = a.pem\nconnect = 9\nTIMEOUTidle = 5\nsetuid = nobody\n"
        "[one]\naccept = 1\nTIMEOUTidle = 6\n"
        "[two]\naccept = 2\nconnect = 10\nsetuid = daemon\n",
        "x",
    )
    one, two = configuration.services
    assert (one.timeout_idle, two.timeout_idle) == (6.0, 5.0)
    assert (one.cert, two.cert) == ("a.pem", "a.pem")
    assert (one.setuid, two.setuid, configuration.options.setuid) == ("nobody", "daemon", "nobody")
    # stunnel adds the targets of a service to those of the defaults.
    assert (one.connect, two.connect) == ((HostPort(None, 9),), (HostPort(None, 9), HostPort(None, 10)))


def test_debug_and_service_in_both_places() -> None:
    configuration = config.loads(
        f"debug = mail.3\nservice = tunnel\n[a]\ndebug = 7\n{CLIENT}[b]\nservice = renamed\n"
        "client = yes\naccept = 3\nconnect = 4\n",
        "x",
    )
    assert configuration.options.service == "tunnel"
    assert configuration.options.debug == config.Debug(3, 2)
    assert [s.name for s in configuration.services] == ["a", "renamed"]
    assert [s.debug.level for s in configuration.services] == [7, 3]


def test_locations() -> None:
    (found,) = config.loads(f"chroot = /x\nTIMEOUTbusy = 1\n[a]\n{CLIENT}connect = 3\n", "x").services
    assert found.location == Location("x", 3, "[a]")
    assert set(found.locations) == {"TIMEOUTbusy", "client", "accept", "connect"}
    assert found.where("connect") == Location("x", 7, "connect = 3")
    assert found.where("cert", "TIMEOUTbusy") == Location("x", 2, "TIMEOUTbusy = 1")
    assert found.where("cert") == found.location


def test_inetd_mode() -> None:
    configuration = config.loads(f"# inetd\n{SERVER}".replace("accept = 1\n", ""), "x")
    assert configuration.inetd
    (found,) = configuration.services
    assert (found.name, found.accept, found.connect) == ("stunnel", None, (HostPort(None, 2),))
    assert found.location.line == 2


def test_global_option_below_a_section() -> None:
    assert errors(f"[a]\n{CLIENT}chroot = /") == [
        '5: "chroot" belongs to the whole daemon, above the first [service]'
    ]


def test_empty_pid_is_none() -> None:
    assert config.loads(f"pid =\n[a]\n{CLIENT}", "x").options.pid is None


@pytest.mark.parametrize(
    "line",
    ["fips = no", "OCSPaia = no", "libwrap = no", "transparent = none", "taskbar = no", "OCSPrequire = yes"],
)
def test_what_asks_for_nothing_is_accepted(line: str) -> None:
    config.loads(f"{line}\n[a]\n{CLIENT}", "x")


def test_what_does_nothing_says_so() -> None:
    (warning, *_) = findings(f"EGD = /x\n[a]\n{CLIENT}")
    assert warning == '1: "EGD" does nothing: OpenSSL seeds its random numbers from the kernel'


def test_findings_come_by_line() -> None:
    lines = [int(text.split(":")[0]) for text in errors("[a]\naccept = x y\n[b]\nfoo = 1\nclient = 2\n[c]\n")]
    assert lines == sorted(lines)


def test_too_many_errors() -> None:
    found = errors("fault\n" * 5000)
    assert len(found) == 101
    assert found[-1] == "-: after 100 errors the rest was not read"


def test_errors_read_like_stunnels() -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.loads("acept = 1\n", "/etc/x.conf")
    assert str(caught.value).splitlines()[0] == (
        '/etc/x.conf:1: "acept = 1": there is no option "acept" (did you mean "accept"?)'
    )


def test_secret_is_in_no_message() -> None:
    text = (
        "protocolPassword = hunter2\nsetEnv = hunter2\nticketKeySecret = hunter2\nprotocolPaswort = hunter2\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        config.loads(text, "x")
    assert "hunter2" not in repr(caught.value.diagnostics)


def test_load_reads_a_file_and_keeps_relative_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text(f"[a]\n{SERVER}", encoding="utf-8")
    configuration = config.load(str(path))
    assert configuration.path == str(path)
    assert configuration.services[0].cert == "server.pem"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent.conf", "No such file or directory"),
        ("/", "Is a directory"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_unreadable_file(path: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(path)
    assert str(caught.value) == f"cannot read the configuration file {path}: {reason}"
