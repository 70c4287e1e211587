"""Who may ask the admin endpoint, and what everybody else gets: a status, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .admin_client import Admin, status_of
from .certificates import Certificates
from .echo import open_tls
from .harness import Culvert, eventually

TOKEN = "a-token-that-nobody-guesses"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"


class Served:
    """A daemon whose endpoint is on TCP."""

    def __init__(self, folder: Path, certificates: Certificates, workers: int, options: str) -> None:
        leaf = certificates.server
        services = f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:1\ncert = {leaf.cert}\nkey = {leaf.key}\n"
        self.daemon = Culvert(folder, services, options=f"admin = 127.0.0.1:0\n{options}", workers=workers)

    @property
    def address(self) -> tuple[str, int]:
        bound = self.daemon.await_log(r"Admin endpoint bound to (\S+):(\d+)$")
        return bound[1], int(bound[2])

    @property
    def admin(self) -> Admin:
        return Admin(self.address)


@pytest.fixture(scope="module", params=[0, 1], ids=["one-process", "one-worker"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("opened"), certificates, request.param, "")
    with served.daemon:
        yield served


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    served = Served(folder, certificates, 1, f"adminTokenFile = {folder / 'token'}\n")
    with served.daemon:
        yield served


HOSTILE = {
    "no-http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no-host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two-hosts": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
    "another-host": (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n" + CLOSE, 421),
    "a-host-like-an-address": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n" + CLOSE, 421),
    "an-empty-host": (b"GET /healthz HTTP/1.1\r\nHost:\r\n" + CLOSE, 421),
    "no-path": (b"GET healthz HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 400),
    "a-target-at-another-host": (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 421),
    "a-target-without-a-host": (b"GET http:///healthz HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 400),
    "an-unknown-path": (b"GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 404),
    "another-method": (b"DELETE /status HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 405),
    "a-connect": (b"CONNECT /status HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 405),
    "an-action-without-a-token": (
        b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n" + CLOSE,
        403,
    ),
    "a-long-target": (b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 414),
    "a-long-head": (GET + b"X: " + b"a" * 20000, 431),
    "many-headers": (GET + b"X: y\r\n" * 5000, 431),
    "a-long-body": (GET + b"Content-Length: 5000\r\n" + CLOSE, 413),
    "a-long-chunked-body": (
        GET + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + b"a" * 5000 + b"\r\n0\r\n\r\n",
        413,
    ),
    "two-lengths": (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n" + CLOSE, 400),
    "a-length-that-is-none": (GET + b"Content-Length: many\r\n" + CLOSE, 400),
    "an-unknown-coding": (GET + b"Transfer-Encoding: gzip\r\n" + CLOSE, 501),
    "a-bad-query": (b"GET /connections?limit=-1 HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 400),
    "a-long-number": (b"GET /connections?limit=000000001999 HTTP/1.1\r\nHost: localhost\r\n" + CLOSE, 400),
    "many-fields": (
        b"GET /connections?" + b"a=1&" * 200 + b" HTTP/1.1\r\nHost: localhost\r\n" + CLOSE,
        400,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_request_that_is_not_in_order_gets_its_status(opened: Served, name: str) -> None:
    request, status = HOSTILE[name]
    assert status_of(opened.admin.send(request, half_close=True)) == status
    assert opened.admin.ask("/healthz").status == 200


def test_a_request_that_ends_early_gets_nothing_that_succeeds(opened: Served) -> None:
    assert status_of(opened.admin.send(GET, half_close=True)) in (0, 400)


def test_bytes_one_at_a_time_are_the_same_request(opened: Served) -> None:
    with socket.create_connection(opened.address, 10) as sock:
        for byte in GET + CLOSE:
            sock.sendall(bytes([byte]))
        assert status_of(sock.recv(65536)) == 200


def test_a_connection_is_kept_for_more_requests(opened: Served) -> None:
    assert opened.admin.send((GET + b"\r\n") * 3 + GET + CLOSE).count(b"HTTP/1.1 200 OK") == 4


def test_a_head_request_gets_no_body(opened: Served) -> None:
    answer = opened.admin.send(b"HEAD /status HTTP/1.1\r\nHost: localhost\r\n" + CLOSE)
    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\n")


def test_a_head_request_that_is_refused_gets_no_body(opened: Served) -> None:
    head = b"HEAD /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
    answer = opened.admin.send(head + CLOSE, half_close=True)
    assert status_of(answer) == 413
    assert answer.endswith(b"\r\n\r\n")


def test_a_target_may_name_its_host(opened: Served) -> None:
    head = b"GET http://localhost/connections?limit=1 HTTP/1.1\r\nHost: evil.example\r\n"
    assert status_of(opened.admin.send(head + CLOSE)) == 200


def test_silent_connections_give_way(opened: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(opened.address, 10))
        assert opened.admin.ask("/healthz").status == 200


def test_too_many_connections_are_told_so(opened: Served) -> None:
    begun: list[socket.socket] = []

    def begin() -> bool:
        """Begin a request, and have its place: those of clients before may be about to be given back."""
        sock = socket.create_connection(opened.address, 10)
        with contextlib.suppress(OSError):
            sock.sendall(GET + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
            if status_of(sock.recv(65536)) == 100:
                begun.append(sock)
                return True
        sock.close()
        return False

    try:
        for _ in range(32):
            eventually(begin, "a place")
        assert opened.admin.ask("/healthz").status == 503
    finally:
        for sock in begun:
            sock.close()
    eventually(lambda: opened.admin.ask("/healthz").status == 200, "room for a connection")


def test_too_many_requests_are_told_so(opened: Served) -> None:
    answer = opened.admin.send((GET + b"\r\n") * 600 + GET + CLOSE)
    assert b"HTTP/1.1 429 Too Many Requests" in answer
    healthy = "the time of many requests to be over"
    eventually(lambda: all(opened.admin.ask("/healthz").status == 200 for _ in range(8)), healthy)


def test_strangers_take_nothing_away(guarded: Served) -> None:
    for _ in range(300):
        assert status_of(guarded.admin.send(GET + CLOSE)) == 401
    for _ in range(5):
        token = f"Authorization: Bearer {TOKEN}\r\n".encode()
        assert status_of(guarded.admin.send(GET + token + CLOSE)) == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]", "LOCALHOST.:80"])
def test_a_host_of_this_machine_is_answered(opened: Served, host: str) -> None:
    assert opened.admin.ask("/healthz", "-H", f"Host: {host}").status == 200


def basic(token: str) -> str:
    """A browser's way to send a token."""
    return "Authorization: Basic " + base64.b64encode(f"culvert:{token}".encode()).decode()


REFUSED = {
    "none": [],
    "wrong": ["-H", "Authorization: Bearer wrong"],
    "a-part": ["-H", f"Authorization: Bearer {TOKEN[:-1]}"],
    "more": ["-H", f"Authorization: Bearer {TOKEN}x"],
    "empty": ["-H", "Authorization: Bearer "],
    "another-scheme": ["-H", f"Authorization: Digest {TOKEN}"],
    "broken-basic": ["-H", "Authorization: Basic %%%"],
    "in-the-query": [],
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/status", "/connections", "/nothing"])
def test_without_the_token_there_is_nothing(guarded: Served, name: str, path: str) -> None:
    query = f"?token={TOKEN}" if name == "in-the-query" else ""
    answer = guarded.admin.ask(path + query, *REFUSED[name])
    assert (answer.status, answer.document) == (401, {"error": "the token is missing or wrong"})


def test_who_has_no_token_holds_no_connection(guarded: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(socket.create_connection(guarded.address, 10))
            sock.sendall(GET + b"\r\n")
            answer = b""
            while piece := sock.recv(65536):  # to the end, which comes without being asked for
                answer += piece
            assert status_of(answer) in (401, 503)
        owner = Admin(guarded.address, TOKEN)
        eventually(lambda: owner.ask("/healthz").status == 200, "a place for who has it", timeout=10)


def test_with_the_token_everything_is_answered_by_any_name(guarded: Served) -> None:
    admin = Admin(guarded.address, TOKEN)
    assert admin.ask("/metrics", "-H", "Host: gateway.example").status == 200
    assert admin.post("/level", {"level": "info"}).status == 200


def test_a_password_serves_for_reading_alone(guarded: Served) -> None:
    assert guarded.admin.ask("/status", "-H", basic(TOKEN)).status == 200
    assert guarded.admin.ask("/reload", "-X", "POST", "-H", basic(TOKEN)).status == 401


def test_the_token_is_in_no_log(guarded: Served) -> None:
    Admin(guarded.address, TOKEN).ask("/status")
    assert not guarded.daemon.log.find(TOKEN)


def test_a_body_that_is_no_json_is_refused(guarded: Served) -> None:
    admin = Admin(guarded.address, TOKEN)
    assert admin.ask("/level", "-d", "level=debug").status == 415
    deep = "[" * 3000
    assert admin.ask("/level", "-H", "Content-Type: application/json", "-d", deep).status == 400


def test_an_address_that_others_can_reach_needs_a_token(tmp_path: Path, certificates: Certificates) -> None:
    served = Served(tmp_path, certificates, 1, "")
    served.daemon.path.write_text(
        served.daemon.path.read_text().replace("admin = 127.0.0.1:0", "admin = 0.0.0.0:0")
    )
    served.daemon.launch()
    assert served.daemon.wait() == 1
    assert served.daemon.log.find('that needs "adminToken"')


def test_a_flood_of_requests_leaves_the_tunnel_alone(opened: Served, certificates: Certificates) -> None:
    flood = [socket.create_connection(opened.address, 10) for _ in range(30)]
    try:
        for sock in flood:
            sock.sendall((GET.replace(b"healthz", b"metrics") + b"\r\n") * 50)
        started = time.monotonic()
        open_tls(opened.daemon.port("s"), certificates.ca.cert).close()  # after its handshake
        assert time.monotonic() - started < 5
    finally:
        for sock in flood:
            sock.close()
    eventually(lambda: opened.admin.ask("/healthz").status == 200, "the end of the flood")
