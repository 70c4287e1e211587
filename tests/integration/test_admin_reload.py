"""The admin endpoint over a reload: what goes on, where it moves to, and what is counted of whom."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from .admin_client import Admin, status_of
from .certificates import Certificates
from .daemon import fixed_ports
from .echo import EchoServer, echo, echo_service, finish, open_tls, say_tls
from .harness import PATIENCE, Culvert, eventually

Start = Callable[..., Culvert]

processes = pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])


def change(daemon: Culvert, old: str, new: str) -> None:
    """Write the configuration file with another line."""
    text = daemon.path.read_text()
    assert old in text
    daemon.path.write_text(text.replace(old, new))


def listened_at(port: int) -> bool:
    """Whether somebody has the right to accept here, whether or not he does."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


@processes
def test_one_may_take_the_endpoint_away(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    admin = Admin(tmp_path / "admin")
    daemon = culvert(echo_service(certificates), options=f"admin = {admin.at}\n", workers=workers)
    mark = daemon.log.mark()
    change(daemon, f"admin = {admin.at}\n", "")
    assert admin.post("/reload").document == {"reload": "done"}
    assert admin.ask("/healthz").status == 0
    assert not (tmp_path / "admin").exists()
    assert not daemon.log.find("Admin endpoint bound", since=mark)
    say_tls(daemon.port("echo"), certificates.ca.cert)


@processes
def test_an_address_that_it_leaves_is_free_at_once(
    culvert: Start, certificates: Certificates, workers: int
) -> None:
    with fixed_ports(2) as (before, after), contextlib.ExitStack() as stack:
        old, new = (f"admin = 127.0.0.1:{port}\n" for port in (before, after))
        daemon = culvert(echo_service(certificates), options=old, workers=workers)
        holder = stack.enter_context(socket.create_connection(("127.0.0.1", before), PATIENCE))
        holder.sendall(b"GET /healthz HTTP/1.1\r\n")
        # An answer of the same socket's queue: the holder, who came before, is accepted.
        assert Admin(("127.0.0.1", before)).ask("/healthz").status == 200
        change(daemon, old, new)
        daemon.send_signal(signal.SIGHUP)
        daemon.await_log(f"Admin endpoint bound to 127.0.0.1:{after}$")
        eventually(lambda: not listened_at(before), "the end of the old address", timeout=5)
        assert Admin(("127.0.0.1", after)).ask("/healthz").status == 200
        holder.sendall(b"Host: localhost\r\n\r\n")  # a request that was under way is answered all the same
        assert status_of(holder.recv(65536)) == 200


def test_a_worker_that_only_finishes_does_not_count_as_one_that_accepts(
    culvert: Start, certificates: Certificates, tmp_path: Path
) -> None:
    admin = Admin(tmp_path / "admin")
    daemon = culvert(echo_service(certificates), options=f"admin = {admin.at}\n", workers=1)
    peer = open_tls(daemon.port("echo"), certificates.ca.cert)
    echo(peer)
    assert admin.post("/reload").status == 200

    def workers() -> tuple[int, int]:
        status = admin.ask("/status").document
        return status["workers"], status["workers_accepting"]

    eventually(lambda: workers() == (2, 1), "the new worker beside the old one")
    assert admin.metric("culvert_workers_accepting") == 1
    finish(peer)
    eventually(lambda: workers() == (1, 1), "the end of the old worker")


@processes
def test_a_target_that_failed_is_not_held_against_its_successor(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    admin = Admin(tmp_path / "admin")
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        living = stack.enter_context(EchoServer())
        old, new = (f"connect = 127.0.0.1:{port}" for port in (dead.getsockname()[1], living.port))
        service = echo_service(certificates, sink=old)
        daemon = culvert(service, options=f"admin = {admin.at}\n", workers=workers)
        held = open_tls(daemon.port("echo"), certificates.ca.cert)  # through a worker that will only finish
        stack.callback(held.close)
        stack.enter_context(dead.accept()[0])
        dead.close()
        for _ in range(max(workers, 1) * 4):
            open_tls(daemon.port("echo"), certificates.ca.cert).close()
        eventually(lambda: admin.ask("/readyz").status == 503, "a service that is not ready")
        change(daemon, old, new)
        assert admin.post("/reload").status == 200
        assert admin.ask("/readyz").body == "ready\n"
        say_tls(daemon.port("echo"), certificates.ca.cert)
        assert admin.ask("/readyz").body == "ready\n"
