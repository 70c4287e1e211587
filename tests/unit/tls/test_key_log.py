"""The key log: what is written, to what kind of file, and for how long it is held open."""

from __future__ import annotations

import gc
import os
import re
import stat
from pathlib import Path

import pytest

from culvert.errors import ConfigurationError
from culvert.tls.context import TlsContext

from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context

LABELS = {
    TLS12: ["CLIENT_RANDOM"],
    TLS13: [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_TRAFFIC_SECRET_0",
    ],
}
"""What the format asks for by version (RFC 9850, 2)."""

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])
LINE = re.compile(r"([A-Z0-9_]+) [0-9a-f]{64} [0-9a-f]{64,}")


def shake_hands(client: TlsContext, server: TlsContext) -> None:
    pair = Pair(client, server).shake_hands()
    assert pair.accepted, (pair.client.failure, pair.server.failure)


def labels(text: str) -> list[str]:
    """The labels of a log's lines, sorted; each line is whole."""
    assert text.endswith("\n")
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    return sorted(match[1] for match in matches if match is not None)


def held(path: Path) -> list[int]:
    """The descriptors of this process that are of that file."""
    wanted = path.stat()
    descriptors = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names are numbers
        try:
            found = os.fstat(int(name))
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            descriptors.append(int(name))
    return descriptors


@VERSIONS
def test_both_ends_write_the_same_secrets(authority: Authority, tmp_path: Path, version: str) -> None:
    ours, theirs = tmp_path / "client", tmp_path / "server"
    client = context(version, f"keylog = {ours}", client=True)
    server = context(version, authority.server_cert, f"keylog = {theirs}")
    shake_hands(client, server)
    assert labels(ours.read_text()) == LABELS[version]
    assert sorted(ours.read_text().splitlines()) == sorted(theirs.read_text().splitlines())


def test_nothing_is_written_without_it(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    server = context(TLS12, authority.server_cert, f"keylog = {path}")
    shake_hands(context(TLS12, client=True), context(TLS12, authority.server_cert))
    assert path.read_text() == ""
    shake_hands(context(TLS12, client=True), server)
    assert labels(path.read_text()) == LABELS[TLS12]


def test_services_share_a_file_and_keep_what_it_holds(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# from before\n")
    servers = [context(TLS12, authority.server_cert, f"keylog = {path}") for _ in range(2)]
    for server in servers * 2:
        shake_hands(context(TLS12, client=True), server)
    before, *lines = path.read_text().splitlines(keepends=True)
    assert before == "# from before\n"
    assert labels("".join(lines)) == LABELS[TLS12] * 4


@pytest.mark.parametrize("mode", [None, 0o644, 0o622])
def test_the_file_is_its_owners_alone(authority: Authority, tmp_path: Path, mode: int | None) -> None:
    path = tmp_path / "keys"
    if mode is not None:
        path.touch()
        path.chmod(mode)
    before = os.umask(0)
    try:
        kept = context(authority.server_cert, f"keylog = {path}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept


def test_what_is_no_file_keeps_its_mode(authority: Authority, tmp_path: Path) -> None:
    """As root, the mode of /dev/null would be every other program's trouble."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    path.chmod(0o622)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        server = context(TLS12, authority.server_cert, f"keylog = {path}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o622
        shake_hands(context(TLS12, client=True), server)
        assert labels(os.read(reader, 4096).decode()) == LABELS[TLS12]
    finally:
        os.close(reader)


def test_a_reader_that_leaves_ends_no_connection(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    server = context(TLS12, authority.server_cert, f"keylog = {path}")
    os.close(reader)
    shake_hands(context(TLS12, client=True), server)


@pytest.mark.parametrize("fault", ["folder", "nowhere", "pipe"])
def test_a_file_that_cannot_be_written_is_refused_by_its_line(
    authority: Authority, tmp_path: Path, fault: str
) -> None:
    path = {"folder": tmp_path, "nowhere": tmp_path / "no" / "keys", "pipe": tmp_path / "pipe"}[fault]
    if fault == "pipe":
        os.mkfifo(path)
    with pytest.raises(ConfigurationError) as refused:
        context(authority.server_cert, f"keylog = {path}")
    (finding,) = refused.value.diagnostics
    assert finding.message.startswith(f"Cannot write the key log {path}: ")
    assert finding.location is not None
    assert (finding.location.text, finding.service) == (f"keylog = {path}", "tunnel")


def test_the_file_is_closed_with_its_context_and_not_before(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    server = context(TLS12, authority.server_cert, f"keylog = {path}")
    gc.collect()
    assert len(held(path)) == 1
    shake_hands(context(TLS12, client=True), server)
    assert labels(path.read_text()) == LABELS[TLS12]
    del server
    gc.collect()
    assert held(path) == []


def test_no_program_inherits_the_file(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    server = context(authority.server_cert, f"keylog = {path}")
    assert [os.get_inheritable(descriptor) for descriptor in held(path)] == [False]
    assert server
