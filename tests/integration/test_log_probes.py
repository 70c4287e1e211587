"""Probes and summaries in a log of text, levels that change, and a standard error that nobody reads."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, fixed_ports
from .echo import echo, echo_service, finish, open_tls, say_tls
from .harness import PATIENCE, Culvert, LogLines, eventually
from .logged import Logged, logged, trusting
from .peers import dial


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Logged]:
    """A daemon that logs everything as text."""
    with logged(tmp_path_factory.mktemp("probes"), certificates, "debug = 7") as daemon:
        yield daemon


def lines_of(daemon: Logged, port: int) -> list[str]:
    """The lines of the connection from this port of a client, once it is over; without their time."""
    accepted = rf"LOG\d\[(\d+)\]: Service \[\w+\] accepted connection from 127\.0\.0\.1:{port}$"
    ident = daemon.log.wait(accepted)[1]
    daemon.log.wait(rf"LOG\d\[{ident}\]: Connection (closed|reset): ")
    return [match[1] for match in daemon.log.find(rf"(LOG\d\[{ident}\]: .*)")]


@pytest.mark.parametrize("service", ["echo", "cifs"])
@pytest.mark.parametrize("rst", [False, True])
def test_a_probe_is_for_debugging_with_a_protocol_too(daemon: Logged, service: str, rst: bool) -> None:
    lines = lines_of(daemon, daemon.probe(service, rst=rst))
    assert {line[:4] for line in lines} == {"LOG7"}
    assert lines[-1].endswith("Connection closed: 0 byte(s) sent to TLS, 0 byte(s) sent to socket")


def test_a_client_that_waits_is_seen(daemon: Logged) -> None:
    with dial(daemon.ports["echo"]) as sock:
        port = sock.getsockname()[1]
        daemon.log.wait(rf"LOG5\[\d+\]: Service \[echo\] accepted connection from 127\.0\.0\.1:{port}$")
    assert lines_of(daemon, port)[-1].startswith("LOG5")


def test_the_summary_does_not_repeat_the_closing_line(daemon: Logged, certificates: Certificates) -> None:
    lines = lines_of(daemon, daemon.shake_hands("echo", trusting(certificates)))
    (summary,) = [line for line in lines if "Connection summary: " in line]
    assert summary.startswith("LOG6")
    fields = re.findall(r'(\w+)=("[^"]*"|\S+)', summary)
    assert [name for name, _ in fields] == [
        *("peer", "target", "version", "cipher", "group", "resumed", "duration", "reason")
    ]
    assert re.fullmatch(
        r"LOG5\[\d+\]: Connection closed: 0 byte\(s\) sent to TLS, 0 byte\(s\) sent to socket", lines[-1]
    )


def test_a_reload_changes_the_level(culvert: Callable[..., Culvert], certificates: Certificates) -> None:
    daemon = culvert(echo_service(certificates), workers=1)
    mark = daemon.reload(echo_service(certificates, more="debug = 3"))
    daemon.await_log("Accepting new connections", since=mark)
    mark = daemon.log.mark()
    say_tls(daemon.port("echo"), certificates.ca.cert)
    assert not daemon.log.find(r"LOG\d\[\d+\]", since=mark)


def test_a_standard_error_that_nobody_reads_stalls_nobody(tmp_path: Path, certificates: Certificates) -> None:
    """The reader stops; connections go on, and once it reads again it is told what it has missed."""
    path = tmp_path / "daemon.conf"
    with fixed_ports(1) as (port,):
        services = echo_service(certificates, port)
        path.write_text(f"foreground = yes\nsyslog = no\npid =\ndebug = 7\nworkers = 1\n{services}")
        process = subprocess.Popen(
            command("run", path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            assert any("Accepting new connections" in line for line in process.stderr)
            peer = open_tls(port, certificates.ca.cert)
            for _ in range(120):  # some 900 bytes of log each, and a pipe holds 65,536
                say_tls(port, certificates.ca.cert)
            echo(peer)
            log = LogLines(process.stderr)
            eventually(lambda: log.find("Connection closed"), "what was written before")
            finish(peer)
            say_tls(port, certificates.ca.cert)
            log.wait(r"LOG4\[main\]: [1-9]\d* log line\(s\) before this one could not be written$")
            process.send_signal(signal.SIGUSR2)
            log.wait(r"LOG5\[main\]: Log lines lost in process \d+: [1-9]\d* for stderr$")
        finally:
            process.terminate()
            process.wait(PATIENCE)
        log.wait_end()
        process.stderr.close()
        assert process.returncode == 0
