"""Connecting to targets that clients ask for: what is judged, and what each failure is called."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert import config
from culvert.address import HostPort
from culvert.errors import ConnectError, Unreached
from culvert.log import Channel, FileSink, Level, Log
from culvert.requested import RequestedTargets
from culvert.targets import Connector, prepare

from .loops import Run


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Channel]:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    written = Log([FileSink(fd, None)])
    yield written.channel(config.Debug(Level.DEBUG, 3), "test")
    written.close()


def requested(log: Channel, *options: str) -> RequestedTargets:
    lines = ["[s]", "accept = 1", "cert = a.pem", "protocol = socks", *options]
    (service,) = config.loads("\n".join(lines), "test.conf").services
    loop = asyncio.get_running_loop()
    return RequestedTargets(service, Connector(loop, service, prepare(service, (), log), log))


async def failure(target: HostPort, log: Channel, *options: str) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await requested(log, *options).connect(target, log)
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_permitted_target_is_reached(run: Run, log: Channel, host: str) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            permitted = requested(log, f"socksAllow = {host}:{port}")
            sock, endpoint = await permitted.connect(HostPort(host, port), log)
            with sock:
                assert sock.gettimeout() == 0.0
                assert sock.getpeername() == server.getsockname()
                assert endpoint.target == HostPort(host, port)

    run(main())


@pytest.mark.parametrize(
    ("host", "options", "cause"),
    [
        ("127.0.0.1", (), Unreached.FORBIDDEN),
        ("localhost", (), Unreached.FORBIDDEN),
        ("127.0.0.1", ("socksAllow = 127.0.0.1:2",), Unreached.FORBIDDEN),
        ("x" * 64, ("socksAllow = localhost",), Unreached.FORBIDDEN),  # and is not looked up
        ("x" * 64, (), Unreached.UNRESOLVED),
        ("127.0.0.1", ("socksAllow = 127.0.0.1",), Unreached.REFUSED),
    ],
)
def test_what_a_failure_is_called(
    run: Run, log: Channel, host: str, options: tuple[str, ...], cause: Unreached
) -> None:
    async def main() -> None:
        assert (await failure(HostPort(host, 1), log, *options)).cause is cause

    run(main())


def test_a_name_has_all_its_addresses_tried(run: Run, log: Channel) -> None:
    """`localhost` is ::1 first, where nobody listens."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            sock, _ = await requested(log, "socksAllow = localhost").connect(HostPort("localhost", port), log)
            sock.close()

    run(main())


def test_one_time_out_is_for_all_of_it(run: Run, log: Channel) -> None:
    async def main() -> None:
        server = socket.create_server(("127.0.0.1", 0), backlog=0)
        with server, socket.create_connection(server.getsockname()):
            options = ("socksAllow = 127.0.0.1", "TIMEOUTconnect = 0.2")
            error = await failure(HostPort("127.0.0.1", server.getsockname()[1]), log, *options)
        assert error.cause is Unreached.TIMED_OUT

    run(main())
