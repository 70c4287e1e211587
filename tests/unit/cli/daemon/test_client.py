"""The client of the admin endpoint, with servers that may be anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from culvert.address import HostPort, UnixPath
from culvert.cli.daemon.client import AdminClient
from culvert.cli.daemon.errors import AdminError, LostError, NobodyListensError, RefusedError

TIME_LIMIT = 20.0


@contextmanager
def answering(answer: bytes | None, received: list[bytes] | None = None) -> Iterator[HostPort]:
    """A server that takes one connection and gives this answer to its first bytes; None says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIME_LIMIT)
        over = threading.Event()

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                sock.settimeout(TIME_LIMIT)
                data = sock.recv(65536)
                if received is not None:
                    received.append(data)
                if answer is None:
                    over.wait(TIME_LIMIT)
                else:
                    sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield HostPort("127.0.0.1", server.getsockname()[1])
        over.set()
        thread.join(TIME_LIMIT)


def response(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_a_document_is_asked_for_with_the_token() -> None:
    received: list[bytes] = []
    with answering(response("200 OK", '{"a": 1}'), received) as address:
        assert AdminClient(address, b"secret").get("/status") == {"a": 1}
    head = received[0].decode()
    assert head.startswith("GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert "\r\nAuthorization: Bearer secret\r\n" in head


def test_an_order_has_a_body_and_a_status() -> None:
    received: list[bytes] = []
    with answering(response("202 Accepted", "{}"), received) as address:
        assert AdminClient(address).post("/level", {"level": 7}) == (202, {})
    assert received[0].endswith(b'\r\nContent-Type: application/json\r\n\r\n{"level": 7}')


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (response("401 Unauthorized", '{"error": "x"}'), RefusedError, "--token-file"),
        (response("404 Not Found", '{"error": "no such thing"}'), RefusedError, "refuses it: no such thing"),
        (response("404 Not Found", "{}"), AdminError, "is no culvert: it says 404"),
        (response("404 Not Found", "<html>"), AdminError, "is no culvert: status 404"),
        (response("200 OK", "[1]"), AdminError, "is no culvert"),
        (response("200 OK", "[" * 100_000), AdminError, "is no culvert"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", AdminError, "is no culvert|hung up"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", AdminError, "is no culvert"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", AdminError, "is no culvert"),
        (b"", LostError, "hung up"),
    ],
)
def test_what_is_no_answer_is_said(answer: bytes, kind: type[AdminError], words: str) -> None:
    with answering(answer) as address, pytest.raises(kind, match=words):
        AdminClient(address).get("/status")


def test_a_wrong_token_is_said() -> None:
    with (
        answering(response("401 Unauthorized", '{"error": "x"}')) as address,
        pytest.raises(RefusedError, match="the token is wrong"),
    ):
        AdminClient(address, b"guess").get("/status")


def test_a_refusal_commands_no_terminal() -> None:
    answer = response("409 Conflict", '{"error": "\\u001b]0;owned\\u0007"}')
    with answering(answer) as address, pytest.raises(RefusedError) as refused:
        AdminClient(address).get("/status")
    assert str(refused.value).isprintable()


def test_nobody_is_waited_for_without_an_end() -> None:
    with answering(None) as address, pytest.raises(AdminError, match="did not answer within"):
        AdminClient(address).post("/reload", patience=0.3)


@pytest.mark.parametrize("place", ["nothing", "file", "unbound"])
def test_nobody_there(tmp_path: Path, place: str) -> None:
    path = tmp_path / "admin"
    if place == "file":
        path.touch()
    elif place == "unbound":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    with pytest.raises(NobodyListensError, match="Nobody listens at"):
        AdminClient(UnixPath(str(path))).get("/status")


def test_a_closed_port_is_nobody() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(NobodyListensError):
            AdminClient(HostPort("127.0.0.1", sock.getsockname()[1])).get("/status")


def test_a_name_that_nobody_has_is_said() -> None:
    with pytest.raises(AdminError, match="Cannot connect to"):
        AdminClient(HostPort("no-such-host.invalid", 1)).get("/status")
