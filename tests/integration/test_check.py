"""`culvert check FILE`: errors and warnings, as text and as JSON, without starting anything."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from .certificates import Certificates, Leaf
from .daemon import command, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The configuration file."""
    return tmp_path / "daemon.conf"


def server(leaf: Leaf, more: str = "") -> str:
    """A server service; `more` stands on line 5."""
    return f"[tunnel]\naccept = 127.0.0.1:4433\ncert = {leaf.cert}\nkey = {leaf.key}\n{more}connect = 8080\n"


def client(more: str) -> str:
    """A client service; `more` stands from line 5 on."""
    return f"[tunnel]\nclient = yes\naccept = 127.0.0.1:4433\nconnect = localhost:8443\n{more}"


def check(path: Path, status: int) -> list[dict[str, Any]]:
    """The findings as JSON, after the text form has said the same."""
    text = run(command("check", path))
    assert text.returncode == status, text.stdout + text.stderr
    finished = run(command("check", "--format", "json", path))
    assert finished.returncode == status
    assert finished.stderr == ""
    report = json.loads(finished.stdout)
    assert report["ok"] == (status == 0)
    findings: list[dict[str, Any]] = report["findings"]
    for finding in findings:
        assert finding["severity"] in ("error", "warning", "note")
        assert finding["message"] in text.stdout + text.stderr
    return findings


def severities(findings: list[dict[str, Any]]) -> set[str]:
    """The kinds of findings."""
    return {str(finding["severity"]) for finding in findings}


def test_a_sound_file(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.server))
    assert "error" not in severities(check(path, 0))


def test_errors_have_line_text_and_hint(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.server, "conect = 80\nverify = 9\n"))
    errors = [finding for finding in check(path, 1) if finding["severity"] == "error"]
    assert [(e["path"], e["line"], e["text"]) for e in errors] == [
        (str(path), 5, "conect = 80"),
        (str(path), 6, "verify = 9"),
    ]
    assert "connect" in errors[0]["hint"]


def test_the_text_has_the_form_of_the_log(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.server, "conect = 80\n"))
    finished = run(command("check", path))
    assert finished.returncode == 1
    assert f'{path}:5: "conect = 80": ' in finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [("", "MITM"), ("CAfile = {ca}\nverifyChain = yes\n", "checkHost")],
    ids=["nothing verified", "no name checked"],
)
def test_a_client_that_trusts_too_much(
    path: Path, certificates: Certificates, options: str, word: str
) -> None:
    path.write_text(client(options.format(ca=certificates.ca.cert)))
    findings = check(path, 0)
    assert [
        f
        for f in findings
        if f["severity"] == "warning" and word in f["message"] and f["service"] == "tunnel"
    ]


def test_a_careful_client_gets_no_warning(path: Path, certificates: Certificates) -> None:
    path.write_text(client(f"CAfile = {certificates.ca.cert}\nverifyChain = yes\ncheckHost = localhost\n"))
    assert "warning" not in severities(check(path, 0))


def test_a_key_that_others_can_read(path: Path, certificates: Certificates, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(certificates.server.key.read_bytes())
    key.chmod(0o644)
    path.write_text(server(certificates.server).replace(str(certificates.server.key), str(key)))
    assert [f for f in check(path, 0) if f["severity"] == "warning" and str(key) in f["message"]]


def test_a_certificate_about_to_expire(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.ca.leaf("soon", hosts=("localhost",), days=5)))
    assert [f for f in check(path, 0) if f["severity"] == "warning" and "expire" in f["message"]]


def test_a_certificate_that_has_expired(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.expired))
    findings = check(path, 0)
    assert [f for f in findings if f["severity"] == "warning" and "expire" in f["message"]]


def test_a_key_of_another_certificate(path: Path, certificates: Certificates) -> None:
    other = str(certificates.client.key)
    path.write_text(server(certificates.server).replace(str(certificates.server.key), other))
    assert [f for f in check(path, 1) if f["severity"] == "error" and other in f["message"]]


def test_nothing_is_started(path: Path, certificates: Certificates, tmp_path: Path) -> None:
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", 0))
        rival.listen()
        port = rival.getsockname()[1]
        path.write_text(
            f"pid = {tmp_path}/daemon.pid\noutput = {tmp_path}/daemon.log\n"
            + server(certificates.server).replace("4433", str(port))
        )
        check(path, 0)
    assert os.listdir(tmp_path) == ["daemon.conf"]  # noqa: PTH208 - the names are all that is asked for


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_missing_file(path: Path, form: str) -> None:
    finished = run(command("check", "--format", form, path))
    assert finished.returncode == 1
    assert str(path) in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    if form == "json":
        assert json.loads(finished.stdout)["ok"] is False


def test_a_secret_is_not_shown(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.server, "protocolPassword = correct horse battery\n"))
    finished = run(command("check", path))
    assert "protocolPassword = (hidden)" in finished.stdout
    assert "battery" not in finished.stdout + finished.stderr


def test_another_format_is_refused(path: Path, certificates: Certificates) -> None:
    path.write_text(server(certificates.server))
    finished = run(command("check", "--format", "xml", path))
    assert finished.returncode != 0
    assert "Traceback" not in finished.stderr
