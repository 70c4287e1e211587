"""Where the log goes: `output` and `log`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LOG_LINE, LogFile, children, command, fixed_ports, run
from .echo import echo_service, say_tls
from .harness import PATIENCE, Culvert


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same whoever listens on it."""
    with fixed_ports(1) as ports:
        yield ports[0]


def test_append_keeps_what_was_there(tmp_path: Path, certificates: Certificates) -> None:
    log = tmp_path / "the.log"
    log.write_text("written before\n")
    for _ in range(2):
        with Culvert(tmp_path, echo_service(certificates), options=f"output = {log}\n") as daemon:
            say_tls(daemon.port("echo"), certificates.ca.cert)
            LogFile(log).wait("Connection closed")
    lines = LogFile(log).lines
    assert lines[0] == "written before"
    assert len([line for line in lines if "Accepting new connections" in line]) == 2
    assert all(LOG_LINE.match(line) for line in lines[1:])


def test_overwrite_begins_anew(tmp_path: Path, certificates: Certificates) -> None:
    log = tmp_path / "the.log"
    log.write_text("written before\n")
    with Culvert(tmp_path, echo_service(certificates), options=f"output = {log}\nlog = overwrite\n"):
        LogFile(log).wait("Accepting new connections")
    assert "written before" not in log.read_text()


def test_every_process_appends(tmp_path: Path, certificates: Certificates) -> None:
    log = tmp_path / "the.log"
    with Culvert(tmp_path, echo_service(certificates), options=f"output = {log}\n", workers=2) as daemon:
        for pid in [daemon.pid, *children(daemon.pid)]:
            entries = [
                entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.resolve() == log.resolve()
            ]
            assert entries
            for entry in entries:
                fields = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split()
                assert int(fields[fields.index("flags:") + 1], 8) & os.O_APPEND


def test_a_log_emptied_by_another_goes_on_from_its_start(tmp_path: Path, certificates: Certificates) -> None:
    log = tmp_path / "the.log"
    with Culvert(tmp_path, echo_service(certificates), options=f"output = {log}\n") as daemon:
        LogFile(log).wait("Accepting new connections")
        os.truncate(log, 0)
        say_tls(daemon.port("echo"), certificates.ca.cert)
        LogFile(log).wait("Connection closed")
        assert LOG_LINE.match(LogFile(log).lines[0])


def test_standard_output_can_be_named(tmp_path: Path, certificates: Certificates, port: int) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(
        "foreground = quiet\nsyslog = no\npid =\ndebug = 7\noutput = /dev/stdout\n"
        + echo_service(certificates, port)
    )
    log = LogFile(tmp_path / "stdout")
    with (
        log.path.open("ab") as stdout,
        subprocess.Popen(
            command("run", path), stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE
        ) as process,
    ):
        try:
            log.wait("Accepting new connections")
            say_tls(port, certificates.ca.cert)
            log.wait("Connection closed")
        finally:
            process.terminate()
            _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert stderr == b""
    assert all(LOG_LINE.match(line) for line in log.lines)


def test_a_pipe_as_standard_output_can_be_named(
    tmp_path: Path, certificates: Certificates, port: int
) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(
        "foreground = quiet\nsyslog = no\npid =\noutput = /dev/stdout\ndebug = 7\n"
        + echo_service(certificates, port)
    )
    with subprocess.Popen(
        command("run", path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert any("Accepting new connections" in line for line in process.stdout)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["missing/the.log", "."])
def test_one_that_cannot_be_opened_ends_the_start(
    tmp_path: Path, certificates: Certificates, port: int, name: str
) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(f"syslog = no\npid =\noutput = {tmp_path / name}\n" + echo_service(certificates, port))
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert str(tmp_path / name) in finished.stderr
    assert "Traceback" not in finished.stderr
