"""Targets that somebody asks for: permitted address by address, and failures told by their cause."""

from __future__ import annotations

import pytest

from culvert.address import HostPort
from culvert.connect import LocalAddress
from culvert.errors import BackendError, ConnectError, Unreached
from culvert.resolve import SocketAddress

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


def test_a_connection_may_have_a_source_address_of_its_own(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as asked:
            connector = connector_of(service(LINE, "local = 127.0.0.8"), log)
            source = LocalAddress(asked.sock.family, ("127.0.0.9", 0))
            target = HostPort(asked.host, asked.port)
            sock, _ = await connector.connect_to(target, anything, log.channel, source)
            with sock:
                assert sock.getsockname()[0] == "127.0.0.9"

    run(main())
