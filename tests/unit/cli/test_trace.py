"""`culvert trace` as it is called: what it refuses, and what it reads of a service's stream."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from culvert.trace import Closed, Direction, Lost, Opened, Record, Secret, TraceEvent, Wire, to_line

from .command import culvert

STREAM: tuple[TraceEvent, ...] = (
    Opened("7", 100.0, 1_700_000_000.0, "web", ("192.0.2.9", 50000), ("192.0.2.1", 443)),
    Secret("7", 100.1, "CLIENT_RANDOM 00 00"),
    Wire("7", 100.1, Direction.TO_SERVER, 0, b"sealed"),
    Record("7", 100.1, Direction.TO_SERVER, 0x0303, 23, 40, inner=23, content=b"hello", size=5),
    Lost(100.2, 2),
    Closed("7", 100.5),
)


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "stream"
    path.write_text("".join(f"{to_line(event)}\n" for event in STREAM))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--listen", "127.0.0.1:0"),
        ("--connect", "127.0.0.1:1"),
        ("--read", "-", "--listen", "0", "--connect", "1"),
        ("--listen", "0", "--connect", "1", "--key", "k"),
        ("--listen", "0", "--connect", "1", "--server-option", "sni=a"),
        ("--listen", "0", "--connect", "1", "--client-option", "verifyChain=yes"),
        ("--attach", "culvert.conf", "--listen", "0", "--connect", "1"),
        ("--attach", "culvert.conf", "--tls"),
        ("--attach", "culvert.conf", "--read", "-"),
        ("--listen", "0", "--connect", "1", "--service", "web"),
        ("--read", "-", "--count", "1"),
        ("culvert.conf",),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    ran = culvert("trace", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("[!] ")


def test_an_option_that_is_none_is_refused_by_its_name() -> None:
    ran = culvert("trace", "--listen", "0", "--connect", "1", "--tls", "--server-option", "verifyChian=yes")
    assert ran.returncode == 1
    assert '"verifyChian=yes": there is no option "verifyChian"' in ran.stderr


def test_a_configuration_without_an_endpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "culvert.conf"
    path.write_text("pid = /run/culvert.pid\n[s]\nclient = yes\naccept = 1\nconnect = 2\n")
    ran = culvert("trace", "--attach", str(path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"[!] {path} has no 'admin'")


def test_what_is_no_address_of_an_endpoint_is_refused() -> None:
    ran = culvert("trace", "--attach", "--admin", "no port")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "--admin takes " in ran.stderr


def test_an_option_is_one_line() -> None:
    ran = culvert("trace", "--listen", "0", "--connect", "1", "--tls", "--server-option", "sni=a\n[more]")
    assert ran.returncode == 1
    assert "more than one line" in ran.stderr


def test_a_capture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no" / "capture"
    ran = culvert("trace", "--listen", "127.0.0.1:0", "--connect", "1", "--tls", "--pcap", str(path))
    assert ran.returncode == 1
    assert f"Cannot write the capture {path}: No such file" in ran.stderr


def test_a_capture_is_not_written_to_a_file_that_somebody_may_have_open(stream: Path, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_text("of before")
    path.chmod(0o644)
    with path.open() as reader:
        assert culvert("trace", "--read", str(stream), "--pcap", str(path)).returncode == 0
        assert reader.read() == "of before"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"\x0a\x0d\x0d\x0a")  # a pcapng section header
    assert {one.name for one in tmp_path.iterdir()} == {"capture", "stream"}


def test_a_capture_may_go_into_a_pipe(stream: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert culvert("trace", "--read", str(stream), "--pcap", str(pipe)).returncode == 0
        assert os.read(reader, 65536).startswith(b"\x0a\x0d\x0d\x0a")
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_stream_is_shown_as_text(stream: Path) -> None:
    ran = culvert("trace", "--read", str(stream), "--data")
    assert (ran.returncode, ran.stderr) == (0, "")
    first, *lines = ran.stdout.splitlines()
    assert first.startswith("Connection 1: 192.0.2.9:50000 to 192.0.2.1:443, service [web], 2023-11-1")
    assert lines == [
        "1 1   0.100000 (0.100000) C>S TLSv1.2 application_data, 40 bytes",
        "    0000  68 65 6c 6c 6f" + " " * 35 + "hello",
        "(2 event(s) lost here)",
        "1     0.500000 closed",
    ]


def test_plain_text_is_left_out_unless_it_is_asked_for(stream: Path) -> None:
    assert "hello" not in culvert("trace", "--read", str(stream)).stdout


def test_a_stream_becomes_json_and_a_capture(stream: Path, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    ran = culvert("trace", "--read", str(stream), "--json", "--data", "--pcap", str(path))
    assert ran.returncode == 0
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["event"] for one in found] == ["opened", "record", "lost", "closed"]
    assert bytes.fromhex(found[1]["data"]) == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert content.index(b"CLIENT_RANDOM") < content.index(b"sealed")


def test_what_is_no_stream_is_refused_by_its_line(stream: Path) -> None:
    stream.write_text(stream.read_text() + "HTTP/1.1 403 Forbidden\n")
    ran = culvert("trace", "--read", str(stream))
    assert ran.returncode == 1
    assert ran.stderr == "[!] This is not the trace of a service: line 7: a line that is not JSON\n"
