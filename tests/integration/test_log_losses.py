"""A log that cannot be written: the lines that are lost are counted for all to see, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .admin_client import Admin
from .certificates import Certificates
from .daemon import fixed_ports
from .echo import EchoServer, echo, echo_service, finish, open_tls, say_tls
from .harness import Culvert, eventually
from .loading import listens

Start = Callable[..., Culvert]

processes = pytest.mark.parametrize("workers", [0, 2], ids=["one-process", "workers"])


def lost(admin: Admin) -> float:
    """How many lines a file did not take."""
    return admin.metric("culvert_log_lines_lost_total", log="file")


@processes
def test_a_full_disk(culvert: Start, certificates: Certificates, tmp_path: Path, workers: int) -> None:
    admin = Admin(tmp_path / "admin")
    with EchoServer() as target, fixed_ports(1) as (port,):
        services = echo_service(certificates, port, sink=f"connect = 127.0.0.1:{target.port}")
        options = f"admin = {admin.at}\noutput = /dev/full\n"
        daemon = culvert(services, options=options, workers=workers)
        peer = open_tls(port, certificates.ca.cert)
        for _ in range(5):
            echo(peer)
            say_tls(port, certificates.ca.cert)
        first = lost(admin)
        assert first > 20
        assert admin.ask("/status").document["log_lines_lost"]["file"] >= first
        assert admin.post("/reload").status == 200
        second = lost(admin)
        assert second > first
        if workers:
            listed = admin.ask("/connections").document["connections"]
            kept = {one["worker"] for one in listed}
            victim = next(
                one for one in daemon.tree() if one not in kept and listens(one, port) and one != daemon.pid
            )
            mark = daemon.log.mark()
            os.kill(victim, signal.SIGKILL)
            daemon.await_log(rf"\(pid {victim}\) was killed", since=mark)
        say_tls(port, certificates.ca.cert)
        assert lost(admin) > second
        echo(peer)
        finish(peer)


@processes
def test_a_pipe_whose_reader_has_gone_and_comes_back(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    admin, pipe = Admin(tmp_path / "admin"), tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        daemon = culvert(
            echo_service(certificates), options=f"admin = {admin.at}\noutput = {pipe}\n", workers=workers
        )
        port = daemon.port("echo")
        peer = open_tls(port, certificates.ca.cert)
        echo(peer)
        assert lost(admin) == 0
        os.close(reader)
        for _ in range(3):
            say_tls(port, certificates.ca.cert)
        assert lost(admin) > 10
        echo(peer)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        say_tls(port, certificates.ca.cert)
        finish(peer)
        text = b""

        def told() -> bool:
            nonlocal text
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 65536)
            return b"log line(s) before this one could not be written" in text

        eventually(told, "that lines were lost")
        daemon.stop()
    finally:
        os.close(reader)
