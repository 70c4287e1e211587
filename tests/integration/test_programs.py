"""`exec`: a local program as the plain side, what it inherits, and how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert, eventually
from .peers import (
    Peers,
    TlsPeer,
    TruncatedError,
    background,
    client_context,
    dial,
    digest,
    pattern,
    read_all,
    read_exactly,
    read_slowly,
    reset,
)

MEGABYTE = 1 << 20

C_LIBRARYS_OWN = 1 << 31 | 1 << 32
"""Signals 32 and 33: glibc keeps them to itself, and make's children have them ignored (posix_spawn)."""

DESCRIPTORS = """\
import os
for number in range(256):
    try:
        print(number, os.readlink(f"/proc/self/fd/{number}"))
    except OSError:
        pass
"""

HALF_CLOSE = """\
import hashlib, socket, sys
sock = socket.socket(fileno=0)
sock.sendall(b"greeting")
sock.shutdown(socket.SHUT_WR)
received = hashlib.sha256()
while data := sock.recv(65536):
    received.update(data)
open(sys.argv[1], "w").write(received.hexdigest())
"""

SCRIPTS = {
    "arguments": "tr '\\0' '\\n' < /proc/$$/cmdline",
    "late-child": "echo parent\n(sleep 0.5; echo child) &",
    "lasting-child": "echo parent\nenv -i sleep 4 &",
    "stderr": "echo to stderr >&2",
}
"""Shell programs, each run as `sh FILE one "two three"`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs stand and leave their results."""
    folder = tmp_path_factory.mktemp("programs")
    for name, text in SCRIPTS.items():
        (folder / f"{name}.sh").write_text(f"{text}\n")
    (folder / "descriptors.py").write_text(DESCRIPTORS)
    (folder / "half-close.py").write_text(HALF_CLOSE)
    (folder / "not-executable").write_text("#!/bin/sh\n")
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path, certificates: Certificates) -> Iterator[Culvert]:
    """A server that has a service for each program; it asks for a client's certificate."""
    programs = {
        "cat": ("/bin/cat", ""),
        "env": ("/usr/bin/env", "env"),
        "status": ("/bin/cat", "cat /proc/self/status"),
        "count": ("/usr/bin/wc", "wc -c"),
        "true": ("/bin/true", ""),
        "sleep": ("/bin/sleep", "sleep 1000"),
        "flood": ("/usr/bin/head", "head -c 4000000 /dev/zero"),
        "descriptors": (sys.executable, f"python {folder}/descriptors.py"),
        "half-close": (sys.executable, f"python {folder}/half-close.py {folder}/half-close.result"),
        "missing": (f"{folder}/missing", ""),
        "forbidden": (f"{folder}/not-executable", ""),
    }
    programs |= {name: ("/bin/sh", f'named {folder}/{name}.sh one "two three"') for name in SCRIPTS}
    services = (
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\nTIMEOUTclose = 1\n"
        f"CAfile = {certificates.ca.cert}\nverify = 1\n"
    )
    for name, (program, arguments) in programs.items():
        services += f"[{name}]\naccept = ::1:0\nexec = {program}\n"
        services += f"execArgs = {arguments}\n" if arguments else ""
    options = "setEnv = CULVERT_GREETING=good morning\nsetEnv = OTHER=1\n"
    with Culvert(folder, services, options=options) as daemon:
        yield daemon


@pytest.fixture
def connect(daemon: Culvert, certificates: Certificates, version: str) -> Iterator[Callable[[str], TlsPeer]]:
    """Connects to a program; in the end no program, zombie or descriptor of it is left."""
    before = daemon.descriptors()
    workers = set(daemon.tree())
    opened: list[TlsPeer] = []

    def one(program: str) -> TlsPeer:
        context = client_context(version, trust=certificates.ca.cert, leaf=certificates.client)
        peer = TlsPeer(dial(daemon.port(program), "::1"), context, server=False)
        opened.append(peer)
        peer.handshake()
        return peer

    yield one
    for peer in opened:
        peer.close()
    daemon.await_descriptors(before)
    eventually(lambda: set(daemon.tree()) <= workers, "the end of every program")


def test_a_program_gets_what_is_sent_and_answers(connect: Callable[[str], TlsPeer]) -> None:
    peer = connect("cat")
    peer.send(b"a line\n")
    assert read_exactly(peer, 7) == b"a line\n"
    data = pattern(4 * MEGABYTE)
    sending = background(peer.send, data)
    assert digest(read_exactly(peer, len(data))) == digest(data)
    sending.result(PATIENCE)
    peer.end()
    assert read_all(peer) == b""


def test_close_notify_closes_the_programs_standard_input(connect: Callable[[str], TlsPeer]) -> None:
    peer = connect("count")
    peer.send(bytes(100_000))
    peer.end()
    assert read_all(peer) == b"100000\n"


def test_the_environment(connect: Callable[[str], TlsPeer]) -> None:
    peer = connect("env")
    port = peer.sock.getsockname()[1]
    lines = read_all(peer).decode().splitlines()
    environment = dict(line.partition("=")[::2] for line in lines)
    assert environment["REMOTE_HOST"] == "::1"
    assert environment["REMOTE_PORT"] == str(port)
    assert environment["CULVERT_GREETING"] == "good morning"
    assert environment["OTHER"] == "1"
    assert environment["SSL_CLIENT_DN"].replace(" ", "") in {
        "C=CH,O=Test,CN=client",
        "/C=CH/O=Test/CN=client",
    }
    assert environment["SSL_CLIENT_I_DN"].replace(" ", "") in {
        "C=CH,O=Test,CN=TestCA",
        "/C=CH/O=Test/CN=TestCA",
    }


def test_without_a_client_certificate_its_names_are_not_set(daemon: Culvert, peers: Peers) -> None:
    peer = TlsPeer(peers.dial(daemon.port("env"), "::1"), client_context(), server=False)
    peer.handshake()
    assert b"SSL_CLIENT" not in read_all(peer)


def test_arguments_are_split_at_white_space_only(connect: Callable[[str], TlsPeer], folder: Path) -> None:
    output = read_all(connect("arguments")).decode().splitlines()
    assert output == ["named", str(folder / "arguments.sh"), "one", '"two', 'three"']


def test_it_holds_its_own_three_descriptors_only(connect: Callable[[str], TlsPeer]) -> None:
    """One end of one socket pair is all of them."""
    lines = [line.split() for line in read_all(connect("descriptors")).decode().splitlines()]
    assert [number for number, _ in lines] == ["0", "1", "2"]
    assert len({target for _, target in lines}) == 1
    assert lines[0][1].startswith("socket:")


def test_its_signals_have_their_default_disposition(connect: Callable[[str], TlsPeer]) -> None:
    status = dict(line.split(":\t") for line in read_all(connect("status")).decode().splitlines())
    for field in ("SigBlk", "SigIgn", "SigCgt"):
        assert int(status[field], 16) & ~C_LIBRARYS_OWN == 0, field


def test_standard_error_goes_to_the_peer(connect: Callable[[str], TlsPeer]) -> None:
    assert read_all(connect("stderr")) == b"to stderr\n"


def test_a_program_that_exits_early_ends_the_connection(connect: Callable[[str], TlsPeer]) -> None:
    peer = connect("true")
    try:
        peer.send(bytes(MEGABYTE))
        assert peer.recv() == b""
    except (ConnectionError, TruncatedError):
        pass


def test_all_output_of_a_program_that_has_exited_arrives(connect: Callable[[str], TlsPeer]) -> None:
    assert digest(read_slowly(connect("flood"), rate=4_000_000)) == digest(bytes(4_000_000))


def test_a_program_that_never_reads_blocks_its_client_and_ends_with_it(
    daemon: Culvert, connect: Callable[[str], TlsPeer]
) -> None:
    before = set(daemon.tree())
    peer = connect("sleep")
    peer.sock.settimeout(1)
    with pytest.raises(TimeoutError):
        for _ in range(100):
            peer.send(bytes(MEGABYTE))
    assert len(set(daemon.tree()) - before) == 1
    reset(peer.sock)  # a FIN would wait behind the data that nobody reads
    eventually(lambda: set(daemon.tree()) <= before, "the end of the program")


def test_a_program_may_close_its_output_and_go_on_reading(
    connect: Callable[[str], TlsPeer], folder: Path
) -> None:
    peer = connect("half-close")
    assert read_all(peer) == b"greeting"
    data = pattern(3 * MEGABYTE)
    peer.send(data)
    peer.end()
    result = folder / "half-close.result"
    eventually(lambda: result.exists() and result.read_text(), "the program's result")
    assert result.read_text() == hashlib.sha256(data).hexdigest()
    result.unlink()


def test_what_a_programs_child_says_later_arrives_too(connect: Callable[[str], TlsPeer]) -> None:
    assert read_all(connect("late-child")) == b"parent\nchild\n"


def test_a_child_that_lasts_does_not_hold_a_connection_that_the_client_has_left(
    daemon: Culvert, connect: Callable[[str], TlsPeer]
) -> None:
    before = daemon.descriptors()
    peer = connect("lasting-child")
    assert read_exactly(peer, 7) == b"parent\n"
    peer.end()
    peer.sock.shutdown(socket.SHUT_WR)
    daemon.await_descriptors(before, timeout=3)


@pytest.mark.parametrize(
    ("program", "reason"), [("missing", "No such file"), ("forbidden", "Permission denied")]
)
def test_a_program_that_cannot_be_executed_is_named_in_the_log(
    daemon: Culvert, connect: Callable[[str], TlsPeer], program: str, reason: str
) -> None:
    mark = daemon.log.mark()
    with contextlib.suppress(ConnectionError, TruncatedError):  # the reset may come with the handshake's end
        peer = connect(program)
        assert read_all(peer) == b""
    name = "missing" if program == "missing" else "not-executable"
    daemon.await_log(rf"LOG3\[\S+\]: .*{name}.*{reason}", since=mark)
