"""What is said to a service manager: each message a datagram, and nothing where nobody asked."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.notify import Notifier


class Manager:
    """The manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(10)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self) -> dict[str, str]:
        """The assignments of the next message."""
        lines = self.sock.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A manager that listens."""
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@culvert-test-{os.getpid()}")
    with manager.sock:
        yield manager


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    """What speaks to it."""
    with contextlib.closing(Notifier(manager.address)) as notifier:
        yield notifier


class TestMessages:
    def test_ready(self, manager: Manager, notifier: Notifier) -> None:
        notifier.ready("Serving 2 service(s)")
        assert manager.hear() == {
            "READY": "1",
            "MAINPID": str(os.getpid()),
            "STATUS": "Serving 2 service(s)",
        }

    def test_reloading_has_the_time_at_which_it_began(self, manager: Manager, notifier: Notifier) -> None:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        heard = manager.hear()
        assert heard["RELOADING"] == "1"
        assert before <= int(heard["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    def test_stopping_asks_for_the_time_that_a_drain_takes(
        self, manager: Manager, notifier: Notifier
    ) -> None:
        notifier.stopping(600)
        heard = manager.hear()
        assert heard["STOPPING"] == "1"
        assert int(heard["EXTEND_TIMEOUT_USEC"]) > 600_000_000

    def test_a_status_cannot_become_another_assignment(self, manager: Manager, notifier: Notifier) -> None:
        notifier.status("one\nMAINPID=1\r\ntwo")
        assert manager.hear() == {"STATUS": "one MAINPID=1 two"}

    def test_the_watchdog(self, manager: Manager, notifier: Notifier) -> None:
        notifier.alive()
        assert manager.hear() == {"WATCHDOG": "1"}

    def test_another_process_is_introduced(self, manager: Manager, notifier: Notifier) -> None:
        notifier.introduce(42)
        assert manager.hear() == {"MAINPID": "42", "READY": "1"}


class TestEnvironment:
    def test_it_is_taken_out(self, manager: Manager) -> None:
        environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "5000000", "PATH": "/bin"}
        with contextlib.closing(Notifier.take(environment)) as notifier:
            notifier.alive()
            assert manager.hear() == {"WATCHDOG": "1"}
            assert notifier.watchdog == 5.0
        assert environment == {"PATH": "/bin"}

    @pytest.mark.parametrize(
        ("variables", "watchdog"),
        [
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "soon"}, None),
            ({"WATCHDOG_USEC": "-1"}, None),
            ({}, None),
        ],
    )
    def test_the_watchdog_of_this_process_counts(
        self, manager: Manager, variables: dict[str, str], watchdog: float | None
    ) -> None:
        with contextlib.closing(Notifier.take({"NOTIFY_SOCKET": manager.address, **variables})) as notifier:
            assert notifier.watchdog == watchdog

    def test_without_a_socket_nothing_is_said(self) -> None:
        notifier = Notifier.take({"WATCHDOG_USEC": "5000000"})
        assert notifier.watchdog is None
        notifier.ready("to nobody")
        notifier.alive()


class TestFaults:
    @pytest.mark.parametrize("address", ["/nonexistent/notify", "relative", "vsock:2:1234", "@" + "x" * 200])
    def test_what_cannot_be_told_is_complained_of_once(self, address: str) -> None:
        complaints: list[str] = []
        with contextlib.closing(Notifier(address)) as notifier:
            notifier.complain = complaints.append
            notifier.ready("to nobody")
            notifier.alive()
        assert len(complaints) == 1
        assert address in complaints[0]

    def test_a_manager_that_comes_again_is_found(self, tmp_path: Path) -> None:
        path = str(tmp_path / "notify")
        first = Manager(path)
        with contextlib.closing(Notifier(path)) as notifier:
            first.sock.close()
            Path(path).unlink()
            second = Manager(path)
            with second.sock:
                notifier.alive()
                assert second.hear() == {"WATCHDOG": "1"}

    def test_one_that_does_not_read_is_not_waited_for_without_end(self, tmp_path: Path) -> None:
        manager = Manager(str(tmp_path / "notify"))
        complaints: list[str] = []
        with manager.sock, contextlib.closing(Notifier(manager.address)) as notifier:
            notifier.complain = complaints.append
            for _ in range(2000):
                notifier.status("again")
                if complaints:
                    break
        assert complaints
