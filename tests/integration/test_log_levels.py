"""How much is logged and by which name: `debug` and `logId`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import LOG_LINE, answers, children, command, fixed_ports, run
from .echo import echo, echo_service, finish, open_plain, open_tls, say_tls
from .harness import Culvert, eventually

Start = Callable[..., Culvert]

HEADER = "foreground = yes\nsyslog = no\npid =\n"

ACCEPTED = r"LOG5\[([^\]]+)\]: Service \[echo\] accepted connection from "


def levels(daemon: Culvert) -> set[int]:
    """The levels of the lines that are logged; every line has the log's form."""
    found = set()
    for line in daemon.log.lines:
        match = LOG_LINE.match(line)
        assert match, line
        found.add(int(match["level"]))
    return found


@contextlib.contextmanager
def silent_start(folder: Path, services: str, port: int, header: str) -> Iterator[Culvert]:
    """A daemon that does not log that it serves: it is ready when the port answers."""
    daemon = Culvert(folder, services, header=header)
    daemon.launch()
    try:
        eventually(lambda: answers(port), "the listening port")
        yield daemon
        daemon.stop()
    finally:
        daemon.kill()


def misbehave(port: int) -> None:
    """A connection whose handshake fails, which is an error in the log."""
    peer = open_plain(port)
    peer.send(b"this is no handshake at all\n")
    with contextlib.suppress(ConnectionError):
        while peer.recv():
            pass
    peer.close()


@pytest.mark.parametrize(
    ("debug", "highest"), [("7", 7), ("debug", 7), ("6", 6), ("daemon.info", 6), ("LOCAL0.INFO", 6)]
)
def test_a_level_bounds_what_is_logged(
    culvert: Start, certificates: Certificates, debug: str, highest: int
) -> None:
    daemon = culvert(echo_service(certificates), header=HEADER + f"debug = {debug}\n")
    say_tls(daemon.port("echo"), certificates.ca.cert)
    daemon.await_log("LOG5.*Connection closed")
    assert {5, 6} <= levels(daemon)
    assert max(levels(daemon)) <= highest


@pytest.mark.parametrize(("debug", "highest"), [("", 5), ("debug = notice\n", 5), ("debug = err\n", 3)])
def test_a_low_level_hides_what_is_above(
    tmp_path: Path, certificates: Certificates, debug: str, highest: int
) -> None:
    with fixed_ports(1) as (port,):
        services = echo_service(certificates, port=port)
        with silent_start(tmp_path, services, port, HEADER + debug) as daemon:
            say_tls(port, certificates.ca.cert)
            misbehave(port)
            daemon.await_log(r"LOG3\[\d+\]: SSL_accept: ")
            assert max(levels(daemon)) == highest
            assert bool(daemon.log.find(ACCEPTED)) == (highest >= 5)


def test_a_service_has_its_own_level(tmp_path: Path, certificates: Certificates) -> None:
    with fixed_ports(2) as (quiet, loud):
        services = echo_service(certificates, port=quiet, name="quiet")
        services += echo_service(certificates, loud, "debug = 6", name="loud")
        with silent_start(tmp_path, services, loud, HEADER + "debug = 3\n") as daemon:
            say_tls(quiet, certificates.ca.cert)
            say_tls(loud, certificates.ca.cert)
            daemon.await_log(r"LOG5\[\d+\]: Connection closed")
            assert daemon.log.find(r"LOG5\[\d+\]: Service \[loud\] accepted connection")
            assert daemon.log.find(r"LOG6\[\d+\]: TLS accepted: new session negotiated")
            assert not daemon.log.find(r"LOG[4-7]\[\d+\]: .*\[quiet\]")


@pytest.mark.parametrize("debug", ["8", "chatty", "daemon.9", "nowhere.info"])
def test_a_level_that_is_none_is_refused(tmp_path: Path, certificates: Certificates, debug: str) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(HEADER + f"debug = {debug}\n" + echo_service(certificates))
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert f'{path}:4: "debug = {debug}": ' in finished.stderr


def identifiers(daemon: Culvert, certificates: Certificates, connections: int) -> list[str]:
    """The identifiers of so many connections that are open at the same time, in the log's order."""
    peers = [open_tls(daemon.port("echo"), certificates.ca.cert) for _ in range(connections)]
    for peer in peers:
        echo(peer)
    found = [match[1] for match in daemon.log.find(ACCEPTED)]
    for peer in peers:
        finish(peer)
    assert len(found) == connections
    eventually(lambda: len(daemon.log.find("Connection closed")) == connections, "the closing lines")
    closed = [match[1] for match in daemon.log.find(r"LOG5\[([^\]]+)\]: Connection closed")]
    assert sorted(closed) == sorted(found)
    return found


def test_sequential_identifiers_count_from_zero(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates))
    assert identifiers(daemon, certificates, 3) == ["0", "1", "2"]


def test_sequential_identifiers_are_apart_on_several_workers(
    culvert: Start, certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), workers=2)
    found = identifiers(daemon, certificates, 12)
    assert len(set(found)) == 12


def test_unique_identifiers_are_long_and_never_the_same(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates, more="logId = unique"), workers=2)
    found = identifiers(daemon, certificates, 12)
    assert len(set(found)) == 12
    assert all(len(identifier) >= 16 and identifier.isprintable() for identifier in found)


def test_process_is_the_worker(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates, more="logId = process"), workers=2)
    workers = {str(pid) for pid in children(daemon.pid)}
    assert set(identifiers(daemon, certificates, 6)) <= workers


def test_thread_is_a_number(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates, more="logId = thread"))
    assert all(identifier.isdecimal() for identifier in identifiers(daemon, certificates, 2))


def test_another_form_is_refused(tmp_path: Path, certificates: Certificates) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(echo_service(certificates, more="logId = random"))
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert f'{path}:6: "logId = random": ' in finished.stderr
