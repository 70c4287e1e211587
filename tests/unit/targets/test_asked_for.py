"""Targets that somebody asks for: permitted address by address, and failures told by their cause."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import pytest

from culvert.address import HostPort
from culvert.errors import BackendError, ConnectError, Unreached
from culvert.resolve import SocketAddress
from culvert.targets import Endpoint
from culvert.targets.lookups import THREAD_LIMIT

from ..loops import Run
from .targets import Listening, Names, Written, closed_port, connector_of, endpoint, service

LINE = "connect = 127.0.0.1:1"


def anything(_: SocketAddress) -> None:
    """Everything is permitted."""


def nothing(sockaddr: SocketAddress) -> None:
    raise BackendError(f"{sockaddr[0]} is not for you")


def test_a_permitted_target_is_reached(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as asked:
            seen: list[SocketAddress] = []
            connector = connector_of(service(LINE), log)
            sock, found = await connector.connect_to(
                HostPort("127.0.0.1", asked.port), seen.append, log.channel
            )
            with sock:
                assert sock.getpeername() == found.sockaddr == asked.sock.getsockname()
            assert seen == [("127.0.0.1", asked.port)]
            assert [state.open for state in connector.states()] == [0], "it is no target of the service"

    run(main())


def test_an_address_that_is_not_permitted_is_not_contacted(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as asked:
            connector = connector_of(service(LINE), log)
            with pytest.raises(ConnectError, match=r"127\.0\.0\.1 is not for you") as failure:
                await connector.connect_to(HostPort("127.0.0.1", asked.port), nothing, log.channel)
            assert failure.value.cause is Unreached.FORBIDDEN
            asked.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                asked.sock.accept()

    run(main())


def test_of_a_name_the_permitted_addresses_are_used(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as forbidden, Listening() as allowed:
            names = Names(**{"name.test": tuple(endpoint("name.test", x, 1) for x in (forbidden, allowed))})
            connector = connector_of(service(LINE), log, None, names)

            def permit(sockaddr: SocketAddress) -> None:
                if sockaddr[1] == forbidden.port:
                    raise BackendError("not that one")

            for _ in range(2):
                sock, found = await connector.connect_to(HostPort("name.test", 1), permit, log.channel)
                with sock:
                    assert found.sockaddr == allowed.sock.getsockname()
            assert names.asked == ["name.test"] * 2, "the name is looked up for each request"
            assert log.attempts(forbidden.port) == 0

    run(main())


@pytest.mark.parametrize("host", ["nowhere.test", "a\0b", "a..b", "x" * 300])
def test_a_name_without_an_address(run: Run, log: Written, host: str) -> None:
    async def main() -> None:
        connector = connector_of(service(LINE), log, None, Names() if host == "nowhere.test" else None)
        with pytest.raises(ConnectError) as failure:
            await connector.connect_to(HostPort(host, 1), anything, log.channel)
        assert failure.value.cause is Unreached.UNRESOLVED

    run(main())


def test_a_target_that_refuses(run: Run, log: Written) -> None:
    async def main() -> None:
        connector = connector_of(service(LINE), log)
        with pytest.raises(ConnectError) as failure:
            await connector.connect_to(HostPort("127.0.0.1", closed_port()), anything, log.channel)
        assert failure.value.cause is Unreached.REFUSED

    run(main())


def test_a_target_that_keeps_silent(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as silent:
            silent.silence()
            connector = connector_of(service(LINE, "TIMEOUTconnect = 1"), log)
            with pytest.raises(ConnectError) as failure:
                await connector.connect_to(HostPort("127.0.0.1", silent.port), anything, log.channel)
            assert failure.value.cause is Unreached.TIMED_OUT

    run(main())


@dataclass(frozen=True)
class Loopback:
    """An address of this machine as a source."""

    host: str
    family: int

    def bind(self, sock: socket.socket) -> None:
        sock.bind((self.host, 0))


def test_a_connection_may_have_a_source_address_of_its_own(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as asked:
            connector = connector_of(service(f"connect = 127.0.0.1:{asked.port}", "local = 127.0.0.8"), log)
            source = Loopback("127.0.0.9", socket.AF_INET)
            target = HostPort("127.0.0.1", asked.port)
            ways = (
                connector.connect(log.channel, source),
                connector.connect_to(target, anything, log.channel, source),
            )
            for way in ways:
                sock, _ = await way
                with sock:
                    assert sock.getsockname()[0] == "127.0.0.9"

    run(main())


def test_a_target_of_another_family_than_the_source_is_not_connected_to(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening("::1") as six, Listening(port=six.port) as four:
            known = (six.endpoint("dual.test"), four.endpoint("dual.test"))
            connector = connector_of(service(f"connect = dual.test:{four.port}"), log, (known,))
            sock, found = await connector.connect(log.channel, Loopback("127.0.0.9", socket.AF_INET))
            with sock:
                assert found.family == socket.AF_INET
            assert [state.due_in for state in connector.states()] == [None, None]

    run(main())


def test_an_address_may_take_the_place_of_the_targets(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as given:
            connector = connector_of(service(LINE), log)
            sock, found = await connector.connect(log.channel, towards=("127.0.0.1", given.port))
            with sock:
                assert sock.getpeername() == found.sockaddr == ("127.0.0.1", given.port)
            connector.release(found)
            given.close()
            with pytest.raises(ConnectError):
                await connector.connect(log.channel, towards=("127.0.0.1", given.port))
            assert connector.states()[0].failures == 0

    run(main())


def test_names_that_nobody_waits_for_any_more_hold_up_nobody(run: Run, log: Written) -> None:
    """Clients can ask for names whose servers never answer, and be gone, faster than these time out."""

    async def main() -> None:
        with Listening() as asked:
            names = Names(**{"good.test": (endpoint("good.test", asked, asked.port),)})
            names.hold.clear()
            connector = connector_of(service(LINE), log, names=names)

            def ask(name: str) -> asyncio.Task[tuple[socket.socket, Endpoint]]:
                target = HostPort(name, asked.port)
                return asyncio.create_task(connector.connect_to(target, anything, log.channel))

            gone = [ask(f"slow{number}.test") for number in range(THREAD_LIMIT + 50)]
            waiting = ask("good.test")
            while len(names.asked) < THREAD_LIMIT:
                await asyncio.sleep(0.01)
            for task in gone:
                task.cancel()
            await asyncio.wait(gone)
            names.hold.set()
            sock, _ = await waiting
            sock.close()
            assert names.asked[THREAD_LIMIT:] == ["good.test"]

    run(main())
