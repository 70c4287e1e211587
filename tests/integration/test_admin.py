"""The admin endpoint of a real daemon: what it shows, what it does, and what outlives what."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .admin_client import Admin
from .certificates import Certificates
from .daemon import children, fixed_ports
from .echo import EchoServer, echo, finish, open_tls, say_tls
from .harness import Culvert, eventually
from .loading import listens_at
from .metrics_text import faults, kinds
from .peers import TlsPeer, client_context, dial

Start = Callable[..., Culvert]


def service(certificates: Certificates, port: int, more: str, name: str = "echo") -> str:
    """A TLS server on this port, with the lines that say where it leads."""
    leaf = certificates.server
    return f"[{name}]\naccept = 127.0.0.1:{port}\ncert = {leaf.cert}\nkey = {leaf.key}\n{more}\n"


class Watched:
    """A daemon that leads to a server that gives back what it gets, and its endpoint."""

    def __init__(
        self, folder: Path, certificates: Certificates, port: int, target: int, workers: int
    ) -> None:
        self.path = folder / "admin"
        self.port = port
        self.trust = certificates.ca.cert
        self.workers = workers
        self.services = service(certificates, port, f"connect = 127.0.0.1:{target}")
        self.daemon = Culvert(folder, self.services, options=f"admin = {self.path}\n", workers=workers)
        self.admin = Admin(self.path)

    def say(self) -> None:
        """One whole connection, which is counted when this returns."""
        before = self.admin.metric("culvert_connections_ended_total", service="echo", end="closed")
        say_tls(self.port, self.trust)
        eventually(
            lambda: (
                self.admin.metric("culvert_connections_ended_total", service="echo", end="closed") > before
            ),
            "the connection to be counted",
        )

    def total(self) -> float:
        """How many connections there were."""
        return self.admin.metric("culvert_connections_total", service="echo")

    def open(self) -> TlsPeer:
        """A connection that stays open and has carried a line."""
        peer = open_tls(self.port, self.trust)
        echo(peer)
        return peer


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Watched]:
    with EchoServer() as target, fixed_ports(1) as ports:
        folder = tmp_path_factory.mktemp("watched")
        watched = Watched(folder, certificates, ports[0], target.port, request.param)
        with watched.daemon:
            yield watched


def test_the_unix_socket_is_its_owners_alone(watched: Watched) -> None:
    found = watched.path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.geteuid())


def test_what_a_connection_did_is_in_the_metrics(watched: Watched) -> None:
    before = watched.admin.metrics()
    watched.say()
    after = watched.admin.metrics()

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted({"service": "echo", **labels}.items())))
        return after.get(key, 0) - before.get(key, 0)

    assert grown("culvert_connections_total") == 1
    assert grown("culvert_handshakes_total") == 1
    assert grown("culvert_tls_versions_total", version="TLSv1.3") == 1
    assert grown("culvert_connections_ended_total", end="closed") == 1
    assert grown("culvert_handshake_seconds_count") == 1
    assert grown("culvert_handshake_seconds_bucket", le="+Inf") == 1
    assert grown("culvert_connect_seconds_count") == 1
    assert (
        grown("culvert_sent_bytes_total", side="tls") == grown("culvert_sent_bytes_total", side="plain") > 0
    )


def test_the_bytes_of_an_open_connection_count_at_once(watched: Watched) -> None:
    before = watched.admin.metric("culvert_sent_bytes_total", service="echo", side="plain")
    peer = watched.open()
    try:
        now = watched.admin.metrics()
        assert now["culvert_sent_bytes_total", (("service", "echo"), ("side", "plain"))] > before
        assert now["culvert_connections_open", (("service", "echo"),)] == 1
    finally:
        finish(peer)
    eventually(lambda: watched.admin.metric("culvert_connections_open", service="echo") == 0, "its end")


def test_what_is_no_tls_is_counted_by_its_reason(watched: Watched) -> None:
    labels = {"service": "echo", "reason": "no TLS"}
    before = watched.admin.metric("culvert_handshake_failures_total", **labels)
    with dial(watched.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while sock.recv(100):
            pass
    eventually(
        lambda: watched.admin.metric("culvert_handshake_failures_total", **labels) == before + 1, "the count"
    )


def test_the_text_is_what_a_server_and_promtool_take(watched: Watched) -> None:
    watched.say()
    text = watched.admin.ask("/metrics").body
    assert not faults(text)
    assert {"culvert_connections_total", "culvert_handshake_seconds"} <= kinds(text).keys()


def test_no_label_is_what_a_peer_sent(watched: Watched) -> None:
    before = {key for key in watched.admin.metrics() if key[0] != "culvert_handshake_failures_total"}
    hello = client_context(trust=watched.trust)
    for number in range(3):
        peer = TlsPeer(dial(watched.port), hello, server=False, name=f"name{number}.example")
        peer.handshake()
        echo(peer)
        finish(peer)
        with dial(watched.port) as sock:
            sock.sendall(b"GET /name%d HTTP/1.1\r\nHost: name.example\r\n\r\n" % number)
            while sock.recv(100):
                pass
    watched.say()
    after = watched.admin.metrics()
    assert not [key for key in after if "name" in str(key[1])]
    assert len({key for key in after if key[0] != "culvert_handshake_failures_total"} - before) <= 20


def test_openmetrics_is_given_to_who_asks_for_it(watched: Watched) -> None:
    text = watched.admin.ask("/metrics", "-H", "Accept: application/openmetrics-text; version=1.0.0").body
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", "text/plain;version=1.0.x"])
def test_a_header_that_means_nothing_gets_the_usual_text(watched: Watched, accept: str) -> None:
    answer = watched.admin.ask("/metrics", "-H", f"Accept: {accept}")
    assert answer.status == 200
    assert not faults(answer.body)


def test_the_status_is_one_document(watched: Watched) -> None:
    status = watched.admin.ask("/status").document
    assert (status["format"], status["ready"], status["workers"]) == (1, True, max(watched.workers, 1))
    assert [one["name"] for one in status["services"]] == ["echo"]
    assert status["services"][0]["targets"][0]["usable"] == 1
    assert status["services"][0]["certificates"][0]["days"] > 0


def test_it_is_alive_and_ready(watched: Watched) -> None:
    assert watched.admin.ask("/healthz").status == 200
    assert watched.admin.ask("/readyz").status == 200
    assert watched.admin.ask("/readyz?service=echo").status == 200
    assert watched.admin.ask("/readyz?service=none").status == 404


def test_a_connection_is_listed_and_can_be_ended(watched: Watched) -> None:
    peer = watched.open()
    try:
        listed = watched.admin.ask("/connections?service=echo").document
        assert (listed["complete"], listed["total"]) == (True, 1)
        one = listed["connections"][0]
        assert (one["service"], one["state"], one["tls"]["version"]) == ("echo", "open", "TLSv1.3")
        mark = watched.daemon.log.mark()
        assert watched.admin.post(f"/connections/{one['id']}/end").document == {"ended": 1}
        watched.daemon.await_log("Connection ended over the admin endpoint", since=mark)
        peer.close()
        watched.daemon.await_log("Connection closed", since=mark)
        assert watched.admin.post(f"/connections/{one['id']}/end").status == 404
    finally:
        peer.close()


def test_the_level_changes_while_it_runs(watched: Watched) -> None:
    watched.say()
    quiet = watched.admin.post("/level", {"level": "err"})
    assert quiet.document == {"level": "err", "service": None}
    mark = watched.daemon.log.mark()
    watched.say()
    assert not watched.daemon.log.find("accepted connection", mark)
    loud = watched.admin.post("/level", {"level": 7, "service": "echo"})
    assert loud.document == {"level": "debug", "service": "echo"}
    watched.say()
    watched.daemon.await_log("accepted connection", since=mark)
    assert not watched.daemon.log.find(r"LOG5\[main\]", mark)
    assert watched.admin.post("/level", {"level": 5}).status == 200
    watched.daemon.await_log("The log level of the daemon and all services is notice", since=mark)


def test_the_level_of_no_service_is_not_changed(watched: Watched) -> None:
    assert watched.admin.post("/level", {"level": 7, "service": "none"}).status == 404


@pytest.mark.parametrize("level", [8, -1, "loud", True, None, [1]])
def test_what_is_no_level_is_a_bad_request(watched: Watched, level: object) -> None:
    assert watched.admin.post("/level", {"level": level}).status == 400


def test_totals_outlive_a_reload(watched: Watched) -> None:
    watched.say()
    total = watched.total()
    reloads = watched.admin.metric("culvert_reloads_total", result="success")
    assert watched.admin.post("/reload").document == {"reload": "done"}
    eventually(
        lambda: watched.admin.metric("culvert_reloads_total", result="success") == reloads + 1, "the reload"
    )
    assert watched.total() == total
    watched.say()
    assert watched.total() == total + 1


def test_a_reload_that_fails_says_so(watched: Watched) -> None:
    watched.daemon.configure("[echo]\naccept = none\n")
    try:
        assert watched.admin.post("/reload").status == 409
        assert watched.admin.metric("culvert_last_reload_successful") == 0
    finally:
        watched.daemon.configure(watched.services)
    assert watched.admin.post("/reload").status == 200
    assert watched.admin.metric("culvert_last_reload_successful") == 1


def test_totals_outlive_a_worker_that_is_killed(watched: Watched) -> None:
    if not watched.workers:
        pytest.skip("there is no worker")
    watched.say()
    watched.say()
    total = watched.total()
    peer = watched.open()
    (worker,) = {one["worker"] for one in watched.admin.ask("/connections").document["connections"]}
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: watched.admin.metric("culvert_worker_restarts_total") == 1, "the replacement")
    peer.close()
    assert watched.total() == total + 1
    assert watched.admin.metric("culvert_connections_open", service="echo") == 0
    eventually(lambda: watched.admin.metric("culvert_workers") == 2, "the new worker")


def test_the_endpoint_comes_back_when_its_process_is_killed(watched: Watched) -> None:
    if not watched.workers:
        pytest.skip("it is in the only process")
    total = watched.total()
    mark = watched.daemon.log.mark()
    os.kill(
        next(one for one in children(watched.daemon.pid) if listens_at(one, watched.path)), signal.SIGKILL
    )
    watched.daemon.await_log("was killed by SIGKILL", since=mark)
    eventually(lambda: watched.admin.ask("/healthz").status == 200, "the endpoint")
    assert watched.total() >= total


def test_a_dead_target_makes_it_not_ready_until_it_answers_again(
    culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    with fixed_ports(2) as (port, target):
        text = service(certificates, port, f"connect = 127.0.0.1:{target}")
        culvert(text, options=f"admin = {tmp_path / 'admin'}\n", workers=2)
        admin = Admin(tmp_path / "admin")
        assert admin.ask("/readyz").status == 200
        with open_tls(port, certificates.ca.cert).sock:
            eventually(lambda: admin.ask("/readyz").status == 503, "a target that does not answer")
        assert admin.ask("/readyz").body == "service [echo] has no live target\n"
        assert admin.ask("/healthz").status == 200
        assert admin.metric("culvert_connect_failures_total", service="echo", reason="refused") == 1
        with socket.create_server(("127.0.0.1", target)):
            eventually(lambda: admin.ask("/readyz").status == 200, "a target that answers again")


def test_it_works_behind_a_jail(culvert: Start, certificates: Certificates, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    jail = tmp_path / "jail"
    jail.mkdir()
    options = f"chroot = {jail}\nsetuid = nobody\nadmin = {tmp_path / 'admin'}\n"
    for workers in (0, 1):
        daemon = culvert(service(certificates, 0, "connect = 127.0.0.1:1"), options=options, workers=workers)
        admin = Admin(tmp_path / "admin")
        assert admin.ask("/metrics").status == 200
        assert admin.ask("/metrics", "-H", "Accept: application/openmetrics-text").body.endswith("# EOF\n")
        assert admin.ask("/").status == 200
        assert admin.ask("/connections").document["total"] == 0
        daemon.stop()


def test_a_web_page_gets_nothing_through_a_forwarded_socket(watched: Watched) -> None:
    assert watched.admin.ask("/status", "-H", "Host: evil.example").status == 421
    assert watched.admin.ask("/reload", "-X", "POST", "-H", "Origin: https://evil.example").status == 403
    assert watched.admin.ask("/", "-H", "Origin: http://localhost:9100").status == 200
