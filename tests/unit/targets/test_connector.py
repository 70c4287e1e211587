"""Connecting: the order of targets, names, deadlines, and what is left behind by those that fail."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from culvert.address import HostPort, UnixPath
from culvert.errors import BackendError, ConfigurationError
from culvert.targets import Connector, Endpoint, Targets, prepare

from ..loops import Run
from .targets import Written, closed_port, service


class Targets4:
    """Listening sockets on addresses of 127/8 that share one port."""

    def __init__(self, count: int) -> None:
        self.stack = ExitStack()
        self.sockets: list[socket.socket] = []
        port = 0
        for host in range(1, count + 1):
            sock = self.stack.enter_context(socket.create_server((f"127.0.0.{host}", port)))
            port = sock.getsockname()[1]
            self.sockets.append(sock)
        self.port = port

    def endpoints(self, name: str = "multi.test") -> tuple[Endpoint, ...]:
        """What a name with all of these addresses is resolved to."""
        target = HostPort(name, self.port)
        return tuple(Endpoint(target, socket.AF_INET, sock.getsockname()) for sock in self.sockets)

    def __enter__(self) -> Targets4:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()


async def reached(connector: Connector, log: Written, times: int) -> list[str]:
    """The hosts that this many connections came to."""
    hosts = []
    for _ in range(times):
        sock, endpoint = await connector.connect(log.channel)
        with sock:
            assert sock.gettimeout() == 0.0
            assert sock.getpeername() == endpoint.sockaddr
            hosts.append(str(endpoint.sockaddr[0]))
        connector.release(endpoint)
    return hosts


@pytest.mark.parametrize(
    ("failover", "order"),
    [("prio", [1, 1, 1, 1, 1]), ("rr", [1, 2, 3, 1, 2])],
)
def test_the_order_of_several_targets(run: Run, log: Written, failover: str, order: list[int]) -> None:
    async def main() -> None:
        with Targets4(3) as targets:
            lines = [f"connect = 127.0.0.{host}:{targets.port}" for host in (1, 2, 3)]
            chosen = service(*lines, f"failover = {failover}")
            connector = Connector(
                asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
            )
            assert await reached(connector, log, 5) == [f"127.0.0.{host}" for host in order]

    run(main())


@pytest.mark.parametrize(
    ("failover", "order"),
    [("prio", [1, 1, 1, 1, 1]), ("rr", [1, 2, 3, 1, 2])],
)
def test_the_addresses_of_one_name_are_targets_like_others(
    run: Run, log: Written, failover: str, order: list[int]
) -> None:
    async def main() -> None:
        with Targets4(3) as targets:
            chosen = service(f"connect = multi.test:{targets.port}", f"failover = {failover}")
            connector = Connector(
                asyncio.get_running_loop(),
                chosen,
                Targets(chosen.connect, (targets.endpoints(),), ()),
                log.channel,
            )
            assert await reached(connector, log, 5) == [f"127.0.0.{host}" for host in order]

    run(main())


@pytest.mark.parametrize("failover", ["prio", "rr"])
def test_a_target_that_is_down_is_passed_over(run: Run, log: Written, failover: str) -> None:
    async def main() -> None:
        with Targets4(1) as targets:
            chosen = service(
                f"connect = 127.0.0.1:{closed_port()}",
                f"connect = 127.0.0.1:{targets.port}",
                f"failover = {failover}",
            )
            connector = Connector(
                asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
            )
            assert await reached(connector, log, 4) == ["127.0.0.1"] * 4
        assert "Connection refused (111)" in log.text

    run(main())


def test_no_target_that_answers_is_the_backends_fault(run: Run, log: Written) -> None:
    async def main() -> None:
        chosen = service(f"connect = 127.0.0.1:{closed_port()}", f"connect = 127.0.0.1:{closed_port()}")
        connector = Connector(
            asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
        )
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(5):
            with pytest.raises(BackendError, match="No more addresses to connect"):
                await connector.connect(log.channel)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    run(main())


async def silent_port(stack: ExitStack) -> int:
    """A port that answers nobody: a listening socket with a full queue drops what comes."""
    full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(8):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())
    await asyncio.sleep(0.05)
    port: int = full.getsockname()[1]
    return port


def test_a_target_that_does_not_answer_costs_timeoutconnect(run: Run, log: Written, tmp_path: Path) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            port = await silent_port(stack)
            chosen = service(f"connect = 127.0.0.1:{port}", "TIMEOUTconnect = 1")
            connector = Connector(
                asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
            )
            start = asyncio.get_running_loop().time()
            with pytest.raises(BackendError):
                await connector.connect(log.channel)
            assert 0.9 < asyncio.get_running_loop().time() - start < 5
            assert "TIMEOUTconnect exceeded" in log.text

    run(main())


def test_who_gives_up_meanwhile_leaves_nothing(run: Run, log: Written) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            port = await silent_port(stack)
            chosen = service(f"connect = 127.0.0.1:{port}")
            connector = Connector(
                asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
            )
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            task = asyncio.create_task(connector.connect(log.channel))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    run(main())


def test_a_connection_leaves_no_task_behind(run: Run, log: Written) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        with Targets4(2) as targets:
            for failover in ("prio", "rr"):
                chosen = service(f"connect = multi.test:{targets.port}", f"failover = {failover}")
                connector = Connector(
                    asyncio.get_running_loop(),
                    chosen,
                    Targets(chosen.connect, (targets.endpoints(),), ()),
                    log.channel,
                )
                await reached(connector, log, 3)
                assert asyncio.all_tasks() == before

    run(main())


def test_a_unix_socket_is_a_target(run: Run, log: Written, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "s"))
            server.listen()
            chosen = service(f"connect = {tmp_path / 's'}")
            connector = Connector(
                asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
            )
            sock, endpoint = await connector.connect(log.channel)
            with sock:
                assert endpoint == Endpoint(
                    UnixPath(str(tmp_path / "s")), socket.AF_UNIX, str(tmp_path / "s")
                )

    run(main())


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64, "x" * 64 + ".test"])
def test_what_cannot_be_a_host_name_has_no_answer(run: Run, log: Written, host: str) -> None:
    async def main() -> None:
        chosen = service(f"connect = {host}:80")
        connector = Connector(
            asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
        )
        with pytest.raises(BackendError, match="No address to connect"):
            await connector.connect(log.channel)
        assert host in log.text

    run(main())


def test_a_source_address_that_cannot_be_is_the_operators_fault(log: Written) -> None:
    chosen = service("connect = 127.0.0.1:1", "local = a..b")
    with pytest.raises(ConfigurationError) as failure:
        prepare(chosen, chosen.connect, log.channel)
    (finding,) = failure.value.diagnostics
    assert finding.location is not None
    assert finding.location.text == "local = a..b"


def test_the_source_address_is_the_one_asked_for(run: Run, log: Written) -> None:
    async def main() -> None:
        with Targets4(1) as targets:
            chosen = service(f"connect = 127.0.0.1:{targets.port}", "local = 127.0.0.9")
            connector = Connector(
                asyncio.get_running_loop(), chosen, prepare(chosen, chosen.connect, log.channel), log.channel
            )
            sock, _ = await connector.connect(log.channel)
            with sock:
                assert sock.getsockname()[0] == "127.0.0.9"

    run(main())


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (HostPort("host.test", 1), "host.test"),
        (HostPort(None, 1), "localhost"),
        (HostPort("127.0.0.1", 1), None),
        (HostPort("::1", 1), None),
        (HostPort("fe80::1%lo", 1), None),
        (UnixPath("/s"), None),
    ],
)
def test_the_server_is_asked_for_by_name_and_not_by_address(
    target: HostPort | UnixPath, name: str | None
) -> None:
    assert Endpoint(target, socket.AF_INET, ("127.0.0.1", 1)).server_name == name


@pytest.mark.parametrize("failover", ["prio", "rr"])
def test_a_name_may_be_looked_up_at_each_connection(run: Run, log: Written, failover: str) -> None:
    async def main() -> None:
        with Targets4(1) as targets:
            chosen = service(f"connect = localhost:{targets.port}", "delay = yes", f"failover = {failover}")
            prepared = prepare(chosen, chosen.connect, log.channel)
            assert prepared.endpoints == (None,)
            connector = Connector(asyncio.get_running_loop(), chosen, prepared, log.channel)
            found = await asyncio.gather(*(connector.connect(log.channel) for _ in range(20)))
            for sock, endpoint in found:
                assert endpoint.server_name == "localhost"
                sock.close()

    run(main())
