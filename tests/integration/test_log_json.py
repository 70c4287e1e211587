"""`logFormat = json`: every line is an object, and each connection has one summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, run
from .echo import echo_service
from .logged import Logged, logged, trusting
from .peers import client_context
from .test_log_hostile import named


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Logged]:
    """A daemon that logs everything as JSON."""
    with logged(tmp_path_factory.mktemp("json"), certificates, "debug = 7\nlogFormat = json") as daemon:
        yield daemon


def test_a_connection_is_summed_up(daemon: Logged, certificates: Certificates) -> None:
    closing = daemon.closing(daemon.shake_hands("echo", trusting(certificates)))
    assert closing["message"] == "Connection closed: 0 byte(s) sent to TLS, 0 byte(s) sent to socket"
    assert (closing["level"], closing["service"], closing["reason"]) == ("notice", "echo", "closed")
    assert (closing["version"], closing["resumed"]) == ("TLSv1.3", False)
    assert closing["cipher"].startswith("TLS_")
    assert closing["target"].startswith("127.0.0.1:")
    assert (closing["sent_to_tls"], closing["sent_to_socket"]) == (0, 0)
    assert 0 <= closing["duration"] < 60
    assert "identity" not in closing
    assert closing["group"]


def test_who_the_client_is_and_by_which_rule(daemon: Logged, certificates: Certificates) -> None:
    leaf = certificates.ca.leaf("client")
    context = client_context("TLSv1.2", trust=certificates.ca.cert, leaf=leaf)
    closing = daemon.closing(daemon.shake_hands("strict", context))
    assert "CN=client" in closing["identity"]
    assert closing["rule"] == "allowCN = client"


def test_a_failure_has_its_reason(daemon: Logged) -> None:
    port = daemon.talk("echo", b"this is no TLS")
    closing = daemon.closing(port)
    assert closing["reason"] == "TLS failed"
    assert closing["detail"].startswith(f"TLS handshake with 127.0.0.1:{port} failed: ")
    assert "version" not in closing


@pytest.mark.parametrize("rst", [False, True])
def test_a_probe_is_for_debugging(daemon: Logged, rst: bool) -> None:
    closing = daemon.closing(daemon.probe("echo", rst=rst))
    assert (closing["level"], closing["reason"]) == ("debug", "sent nothing")
    of_it = [one for one in daemon.entries() if one.get("connection") == closing["connection"]]
    assert {one["level"] for one in of_it} == {"debug"}
    assert "accepted connection from" in of_it[0]["message"]


def test_every_line_is_an_object_whatever_a_peer_sends(
    daemon: Logged, certificates: Certificates, tmp_path: Path
) -> None:
    names = ['"},{"level":"err', "\\", "x\n{}\x1b[2J", "\u202e\u2028", "y" * 60, *["z" * 64] * 30]
    hostile = client_context("TLSv1.2", trust=certificates.ca.cert, leaf=named(tmp_path, names))
    closing = daemon.closing(daemon.shake_hands("strict", hostile))
    entries = daemon.entries()
    assert {"time", "level", "message"} <= set.intersection(*(set(one) for one in entries))
    rejected = [one for one in entries if one.get("connection") == closing["connection"]]
    assert any("zzz" in one["message"] and "level" in one["message"] for one in rejected), rejected
    assert all(len(one["message"].encode()) <= 1024 for one in entries)


def test_an_unknown_format_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text("logFormat = xml\n" + echo_service(certificates))
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert f'{path}:1: "logFormat = xml": ' in finished.stderr
