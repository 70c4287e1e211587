"""`culvert trace --attach`: what a running daemon shows of its connections, to whom, and for how long."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .admin_client import Admin, status_of
from .certificates import Certificates
from .daemon import fixed_ports, needs_root
from .echo import EchoServer, echo, echo_service, finish, open_tls, say_tls
from .harness import HEADER, PATIENCE, Culvert, LogLines, eventually
from .peers import TlsPeer, background, client_context, dial, pattern, read_exactly
from .tracing import TraceCommand, tshark

Start = Callable[..., Culvert]

LINE = b"the plain text of it\n"
VERSIONS = ("TLSv1.2", "TLSv1.3")


def hexadecimal(line: bytes) -> str:
    """How the first bytes of a line are shown."""
    return line[:16].hex(" ")


class Stream:
    """The events of a trace as the endpoint gives them; `body` is what is asked for."""

    def __init__(self, path: Path, **body: object) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE)
        self._sock.connect(str(path))
        self._sock.sendall(asking(body))
        self._sock.settimeout(None)
        file = self._sock.makefile("r")
        self.status = status_of(file.readline().encode())
        while file.readline().strip():
            pass
        self.lines = LogLines(file)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Those of one kind so far."""
        return [one for line in self.lines.lines if (one := json.loads(line))["event"] == kind]

    def await_events(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Those of one kind, once there are so many."""
        return eventually(
            lambda: found if len(found := self.events(kind)) >= count else [], f"{count} {kind}"
        )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self.lines.wait_end()


def asking(body: Mapping[str, object]) -> bytes:
    """A request for a trace."""
    text = json.dumps(body).encode()
    head = f"POST /trace HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


class Daemon:
    """A daemon with a service that may be traced, [echo], and one that may not, [closed]."""

    def __init__(
        self, folder: Path, certificates: Certificates, ports: list[int], target: int, workers: int
    ) -> None:
        self.socket = folder / "admin"
        self.echo, self.closed = ports
        self.trust = certificates.ca.cert
        self.processes = max(workers, 1)
        sink = f"connect = 127.0.0.1:{target}"
        more = echo_service(certificates, self.closed, name="closed", sink=sink)
        self.services = echo_service(certificates, self.echo, "trace = yes", sink=sink) + more
        self.untraced = echo_service(certificates, self.echo, sink=sink) + more
        self.culvert = Culvert(folder, self.services, options=f"admin = {self.socket}\n", workers=workers)
        self.admin = Admin(self.socket)

    @contextlib.contextmanager
    def traced(self, **body: object) -> Iterator[Stream]:
        """A trace that every process has joined."""
        stream = Stream(self.socket, **body)
        try:
            assert stream.status == 200
            stream.await_events("joined", self.processes)
            yield stream
        finally:
            stream.close()

    def say(self, line: bytes = LINE, version: str | None = None) -> None:
        """One whole connection of [echo]."""
        peer = TlsPeer(dial(self.echo), client_context(version, trust=self.trust), server=False)
        peer.handshake()
        echo(peer, line)
        finish(peer)

    def reload(self, services: str) -> None:
        """Have this served from now on."""
        self.culvert.configure(services)
        assert self.admin.post("/reload").document == {"reload": "done"}


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Daemon]:
    with EchoServer() as target, fixed_ports(2) as ports:
        folder = tmp_path_factory.mktemp("daemon")
        running = Daemon(folder, certificates, ports, target.port, request.param)
        with running.culvert:
            yield running


def say(daemon: Daemon, version: str, line: bytes = LINE) -> None:
    """One whole connection of this TLS version."""
    context = client_context(trust=daemon.trust, version=version)
    peer = TlsPeer(dial(daemon.echo), context, server=False)
    peer.handshake()
    echo(peer, line)
    finish(peer)


@dataclass(frozen=True)
class Shown:
    """What the command has shown of a connection of each version, and of one of [closed]."""

    text: str
    capture: Path
    idents: set[str]


@pytest.fixture(scope="module")
def shown(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    capture = tmp_path_factory.mktemp("shown") / "capture"
    mark = daemon.culvert.log.mark()
    with TraceCommand("--attach", daemon.culvert.path, "--data", "--pcap", capture) as trace:
        eventually(lambda: len(trace.shown.find("is seen from here on")) == daemon.processes, "all of them")
        say_tls(daemon.closed, daemon.trust)
        for number, version in enumerate(VERSIONS, 1):
            daemon.say(LINE, version)
            trace.shown.wait(rf"^{number} +\d\S+ closed$")
    accepted = daemon.culvert.log.find(r"LOG5\[(\d+)\]: Service \[echo\] accepted", mark)
    return Shown(trace.text, capture, {match[1] for match in accepted})


def test_who_could_look_is_warned_of(daemon: Daemon) -> None:
    daemon.culvert.await_log(
        r'LOG4\[main\]: .*culvert\.conf:\d+: "trace = yes": whoever may use the admin endpoint can read all'
    )


def test_who_looks_is_in_the_log(daemon: Daemon) -> None:
    mark = daemon.culvert.log.mark()
    with daemon.traced(service="echo", data=True):
        daemon.culvert.await_log(
            r"LOG5\[main\]: A trace of service \[echo\] was asked for .*, with what is carried in clear",
            since=mark,
        )


def test_plain_text_is_shown_of_both_directions_and_versions(shown: Shown) -> None:
    pattern = rf"([CS]>[CS]) TLSv1\.2 application_data, \d+ bytes\n    0000  {hexadecimal(LINE)}"
    assert re.findall(pattern, shown.text) == ["C>S", "S>C"] * 2


def test_the_messages_of_the_handshake_are_shown_by_name(shown: Shown) -> None:
    names = set(re.findall(r"(?m)^    (\w+), \d+ bytes$", shown.text))
    assert {"ClientHello", "ServerHello", "Certificate", "CertificateVerify", "Finished"} <= names


def test_connections_are_called_as_in_the_log(shown: Shown) -> None:
    found = re.findall(r"(?m)^Connection \d+: .* service \[echo\], (\d+) in the log, ", shown.text)
    assert (len(found), set(found)) == (2, shown.idents)


def test_a_service_without_leave_is_left_out(shown: Shown) -> None:
    assert len(re.findall("(?m)^Connection ", shown.text)) == 2


def test_tshark_decrypts_the_capture(shown: Shown) -> None:
    for stream in range(2):
        followed = "\n".join(tshark(shown.capture, "-q", "-z", f"follow,tls,ascii,{stream}"))
        assert followed.count(LINE.decode()) == 2
    wrong = "tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed"
    assert tshark(shown.capture, "-Y", wrong) == []


def test_without_data_no_plain_text_leaves_the_daemon(daemon: Daemon) -> None:
    with daemon.traced() as stream:
        daemon.say()
        stream.await_events("closed", 1)
    carried = [one for one in stream.events("record") if one["type"] == 23 and one["inner"] in (None, 23)]
    assert [(one["size"], one["content"]) for one in carried] == [(len(LINE), "")] * 2
    assert not stream.events("wire") + stream.events("secret")


def test_connections_of_all_processes_are_shown(daemon: Daemon) -> None:
    with daemon.traced() as stream:
        for _ in range(8):
            daemon.say()
        stream.await_events("closed", 8)
    assert len({one["connection"] for one in stream.events("opened")}) == 8


def test_a_connection_from_before_is_counted_and_not_shown(daemon: Daemon) -> None:
    before = open_tls(daemon.echo, daemon.trust)
    echo(before)
    (known,) = daemon.admin.ask("/connections").document["connections"]
    with daemon.traced() as stream, daemon.traced(connection=known["id"]) as chosen:
        for one in (stream, chosen):
            assert sum(event["missed"] for event in one.events("joined")) == 1
        echo(before)
        daemon.say()
        stream.await_events("closed", 1)
        finish(before)
        daemon.say()
        stream.await_events("closed", 2)
    assert len(stream.events("opened")) == 2
    assert not chosen.events("opened")


def test_a_reload_goes_on_being_shown(daemon: Daemon) -> None:
    with daemon.traced(data=True) as stream:
        before = open_tls(daemon.echo, daemon.trust)
        daemon.reload(daemon.services)
        stream.await_events("joined", 2 * daemon.processes)
        daemon.say()
        stream.await_events("closed", 1)
        echo(before, b"after the reload\n")
        stream.lines.wait(base64.b64encode(b"after the reload\n").decode())
        finish(before)
        stream.await_events("closed", 2)


def test_a_reload_that_takes_the_leave_away_shows_nothing_of_the_new(daemon: Daemon) -> None:
    with daemon.traced() as stream:
        before = open_tls(daemon.echo, daemon.trust)
        stream.await_events("opened", 1)
        try:
            daemon.reload(daemon.untraced)
            daemon.say()
            refused = daemon.admin.post("/trace", {})
            assert refused.status == 403
            assert refused.document["error"].startswith('no service has "trace = yes"')
            finish(before)
            stream.await_events("closed", 1)
        finally:
            daemon.reload(daemon.services)
    assert len(stream.events("opened")) == 1


def test_a_worker_that_replaces_another_is_shown(daemon: Daemon) -> None:
    if daemon.processes == 1:
        pytest.skip("there is no worker")
    with daemon.traced() as stream:
        os.kill(stream.events("joined")[0]["process"], signal.SIGKILL)
        stream.await_events("joined", daemon.processes + 1)
        for _ in range(6):
            daemon.say()
        stream.await_events("closed", 6)


def test_the_command_ends_after_so_many_records_or_its_time(daemon: Daemon) -> None:
    where = ("--attach", "--admin", daemon.socket)
    with (
        TraceCommand(*where, "--json", "--count", "3") as counted,
        TraceCommand(*where, "--duration", "0.2") as timed,
    ):
        eventually(lambda: len(counted.shown.find('"joined"')) == daemon.processes, "all of them")
        daemon.say()
        assert counted.wait() == timed.wait() == 0
    assert len(counted.shown.find('"record"')) == 3
    assert timed.shown.find("is seen from here on")


def test_a_service_without_leave_is_refused(daemon: Daemon) -> None:
    trace = TraceCommand("--attach", daemon.culvert.path, "--service", "closed")
    assert trace.wait() == 1
    assert trace.said.lines == [
        f"[!] The admin endpoint {daemon.socket} refuses: this service does not have "
        '"trace = yes": what it carries is not shown to anybody'
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"service": "none"}, 404),
        ({"service": "closed"}, 403),
        ({"data": 1}, 400),
        ({"connection": "a b"}, 400),
        ({"connection": 7}, 400),
        ([], 400),
    ],
)
def test_what_is_asked_wrongly_gets_its_status(daemon: Daemon, body: object, status: int) -> None:
    assert daemon.admin.post("/trace", body).status == status


class Idle:
    """A reader that takes nothing until it is told to."""

    def __init__(self, path: Path, **wants: bool) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.connect(str(path))
        self._sock.sendall(asking(wants))
        self.status = status_of(self._sock.recv(13))

    def read_until(self, word: bytes) -> None:
        """Take what comes, up to this word."""
        last = b""
        while word not in last:
            data = self._sock.recv(100_000)
            assert data, last[-500:]
            last = last[-1000:] + data

    def close(self) -> None:
        self._sock.close()


def test_a_reader_that_takes_nothing_holds_nobody_up_and_is_told_what_it_missed(daemon: Daemon) -> None:
    before = daemon.culvert.descriptors()
    idle = Idle(daemon.socket, data=True, wire=True)
    try:
        assert idle.status == 200
        peer = open_tls(daemon.echo, daemon.trust)
        data = pattern(6_000_000)
        sending = background(peer.send, data)
        assert read_exactly(peer, len(data)) == data
        sending.result(PATIENCE)
        finish(peer)
        idle.read_until(b'"event": "lost"')
    finally:
        idle.close()
    daemon.culvert.await_descriptors(before + 1)


def test_there_is_a_bound_to_traces_at_a_time(daemon: Daemon) -> None:
    before = daemon.culvert.descriptors()
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            idle = Idle(daemon.socket)
            stack.callback(idle.close)
            assert idle.status == 200
        refused = daemon.admin.post("/trace", {})
        assert refused.status == 503
        assert "there are too many" in refused.document["error"]

    def room() -> bool:
        """Whether all but the last, who is noticed to have gone when the next one comes, are forgotten."""
        stream = Stream(daemon.socket)
        stream.close()
        return stream.status == 200 and daemon.culvert.descriptors() <= before + 1

    eventually(room, "room for more")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_drain_is_shown_to_its_end(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    options = f"admin = {tmp_path / 'admin'}\ndrainTimeout = 20\n"
    services = echo_service(certificates, more="trace = yes")
    running = culvert(services, header=HEADER, options=options, workers=workers)
    with TraceCommand("--attach", running.path, "--data") as trace:
        trace.shown.wait("is seen from here on")
        peer = open_tls(running.port("echo"), certificates.ca.cert)
        trace.shown.wait("^Connection 1")
        idle = Idle(tmp_path / "admin")
        running.send_signal(signal.SIGTERM)
        running.await_log("Stopping: waiting for 1 connection")
        echo(peer, b"while it stops\n")
        finish(peer)
        began = time.monotonic()
        assert trace.wait() == 0
        assert running.wait() == 0
        assert time.monotonic() - began < 10
        idle.close()
    trace.shown.wait(f"0000  {hexadecimal(b'while it stops')}")
    trace.shown.wait(r"^1 +\d\S+ closed$")
    assert trace.said.lines == ["[.] The daemon has ended the trace"]


def test_over_tcp_it_takes_the_token(culvert: Start, certificates: Certificates) -> None:
    secret = "a-token-that-nobody-guesses-0123456789"
    services = echo_service(certificates, more="trace = yes")
    with fixed_ports(2) as (port, other):
        culvert(services, options=f"admin = 127.0.0.1:{port}\n", workers=0)
        assert Admin(("127.0.0.1", port)).post("/trace", {}).status == 403
        options = f"admin = 127.0.0.1:{other}\nadminToken = {secret}\n"
        guarded = culvert(services, options=options, workers=0)
        assert Admin(("127.0.0.1", other), "wrong").post("/trace", {}).status == 401
        with TraceCommand("--attach", guarded.path) as trace:
            trace.shown.wait("is seen from here on")


@needs_root
@pytest.mark.parametrize("workers", [0, 1])
def test_it_works_behind_a_jail(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    jail = tmp_path / "jail"
    jail.mkdir()
    with EchoServer() as target:
        sink = f"connect = 127.0.0.1:{target.port}"
        running = culvert(
            echo_service(certificates, more="trace = yes", sink=sink),
            options=f"chroot = {jail}\nsetuid = nobody\nadmin = {tmp_path / 'admin'}\n",
            workers=workers,
        )
        with TraceCommand("--attach", running.path) as trace:
            trace.shown.wait("is seen from here on")
            say_tls(running.port("echo"), certificates.ca.cert)
            trace.shown.wait(r"^1 +\d\S+ closed$")


def test_nobody_who_answers_is_said_so(tmp_path: Path) -> None:
    trace = TraceCommand("--attach", "--admin", tmp_path / "nobody")
    assert trace.wait() == 1
    assert trace.said.lines == [
        f"[!] Nothing answers at the admin endpoint {tmp_path / 'nobody'}: No such file or directory"
    ]
