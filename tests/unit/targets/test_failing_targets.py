"""Targets that fail: set aside, tried again in the background, and never met twice in a row by clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from culvert.errors import ConnectError
from culvert.targets import Connector, Upkeep
from culvert.targets.health import FIRST_PAUSE, LAST_PAUSE, pause_after

from ..loops import Run
from .targets import Listening, Written, closed_port, connector_of, endpoint, reached, service, until

ORDERS = ("prio", "rr", "leastconn")


@asynccontextmanager
async def kept_up(connector: Connector, log: Written) -> AsyncIterator[None]:
    """With its background at work; it must leave nothing behind."""
    before = asyncio.all_tasks()
    task = asyncio.create_task(Upkeep(connector, log.channel).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.all_tasks() == before


def pair(first: int, second: int, *options: str) -> tuple[str, ...]:
    return (f"connect = 127.0.0.1:{first}", f"connect = 127.0.0.1:{second}", *options)


@pytest.mark.parametrize("failover", ORDERS)
def test_a_dead_target_is_met_once(run: Run, log: Written, failover: str) -> None:
    async def main() -> None:
        with Listening() as living:
            dead = closed_port()
            connector = connector_of(service(*pair(dead, living.port, f"failover = {failover}")), log)
            assert await reached(connector, log, 10) == [living.port] * 10
            assert log.attempts(dead) == 1
            assert log.text.count(f"127.0.0.1:{dead} is set aside: Connection refused") == 1

    run(main())


@pytest.mark.parametrize("failover", ORDERS)
def test_it_is_used_again_when_the_background_has_found_it(run: Run, log: Written, failover: str) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            connector = connector_of(service(*pair(first.port, second.port, f"failover = {failover}")), log)
            async with kept_up(connector, log):
                first.close()
                assert set(await reached(connector, log, 4)) == {second.port}
                first.open()
                await until(log, f"127.0.0.1:{first.port} answers again")
                assert first.port in await reached(connector, log, 2)
            assert log.text.count("is set aside") == log.text.count("answers again") == 1

    run(main())


def test_nobody_is_refused_without_an_attempt(run: Run, log: Written) -> None:
    """All are set aside: the one that is due soonest is tried first, and a success ends its state."""

    async def main() -> None:
        with Listening() as first, Listening() as second:
            connector = connector_of(service(*pair(first.port, second.port)), log)
            first.close()
            second.close()
            for count in (1, 2, 3):
                with pytest.raises(ConnectError):
                    await connector.connect(log.channel)
                assert log.attempts(first.port) == log.attempts(second.port) == count
            assert [state.failures for state in connector.states()] == [1, 1], "clients do not lengthen it"
            second.open()
            assert await reached(connector, log, 2) == [second.port] * 2
            assert log.attempts(first.port) <= 4
            assert f"127.0.0.1:{second.port} answers again" in log.text

    run(main())


def test_one_that_is_set_aside_is_tried_when_the_others_have_failed(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            connector = connector_of(service(*pair(first.port, second.port)), log)
            first.close()
            assert await reached(connector, log) == [second.port]
            first.open()
            second.close()
            assert await reached(connector, log) == [first.port]

    run(main())


def test_the_pause_doubles_up_to_a_bound() -> None:
    pauses = [pause_after(failures) for failures in range(1, 100)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_PAUSE


def test_probes_lengthen_the_pause(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as living:
            dead = closed_port()
            connector = connector_of(service(*pair(dead, living.port)), log)
            async with kept_up(connector, log):
                await reached(connector, log)
                while connector.states()[0].failures < 2:
                    await asyncio.sleep(0.02)
                due_in = connector.states()[0].due_in
                assert due_in is not None
                assert 1.5 < due_in <= 2.0
            assert log.attempts(dead) == 1, "probes are not clients"

    run(main())


def test_the_only_address_is_never_set_aside(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            connector = connector_of(service(f"connect = 127.0.0.1:{only.port}"), log)
            assert not Upkeep(connector, log.channel).possible
            only.close()
            for _ in range(3):
                with pytest.raises(ConnectError, match="No more addresses"):
                    await connector.connect(log.channel)
            assert connector.states()[0].failures == 3
            only.open()
            assert await reached(connector, log) == [only.port]
            assert connector.states()[0].failures == 0
            assert "set aside" not in log.text

    run(main())


def test_what_this_machine_is_short_of_is_no_fault_of_a_target(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            chosen = service(*pair(first.port, second.port, "local = 192.0.2.1"))
            connector = connector_of(chosen, log)
            with pytest.raises(ConnectError):
                await connector.connect(log.channel)
            assert [state.due_in for state in connector.states()] == [None, None]
            assert "Cannot assign requested address" in log.text

    run(main())


def test_a_probe_that_this_machine_cannot_make_is_left_for_later(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            chosen = service(*pair(first.port, second.port, "local = 192.0.2.1"))
            connector = connector_of(chosen, log)
            connector.health.doubted(next(connector.backends()))
            async with kept_up(connector, log):
                await until(log, "Cannot assign requested address")
                await asyncio.sleep(0.2)
            assert log.text.count("Trying whether") == 1
            assert "set aside" not in log.text

    run(main())


def test_an_address_that_was_overtaken_is_probed_at_once(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as silent, Listening() as living:
            silent.silence()
            known = tuple(endpoint("pair.test", one, 1) for one in (silent, living))
            connector = connector_of(service("connect = pair.test:1", "TIMEOUTconnect = 1"), log, (known,))
            async with kept_up(connector, log):
                assert await reached(connector, log) == [living.port]
                await until(log, f"pair.test:1 (127.0.0.1:{silent.port}) is set aside: no answer")
            assert log.attempts(silent.port) == 1

    run(main())


def test_a_health_check_finds_a_dead_target_before_a_client(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as living:
            dead = closed_port()
            connector = connector_of(service(*pair(dead, living.port, "healthCheck = 1")), log)
            async with kept_up(connector, log):
                await until(log, f"127.0.0.1:{dead} is set aside")
                assert await reached(connector, log, 3) == [living.port] * 3
                with Listening(port=dead):
                    await until(log, f"127.0.0.1:{dead} answers again")
                    assert await reached(connector, log) == [dead]
            assert log.attempts(dead) == 1

    run(main())


def test_a_health_check_watches_an_only_target_too(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            connector = connector_of(service(f"connect = 127.0.0.1:{only.port}", "healthCheck = 1"), log)
            async with kept_up(connector, log):
                only.close()
                await until(log, f"127.0.0.1:{only.port} does not answer: Connection refused")
                only.open()
                await until(log, f"127.0.0.1:{only.port} answers again")
            assert log.attempts(only.port) == 0

    run(main())


def test_a_probe_that_hangs_ends_with_the_background(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as silent:
            silent.silence()
            connector = connector_of(service(f"connect = 127.0.0.1:{silent.port}", "healthCheck = 1"), log)
            async with kept_up(connector, log):
                await until(log, "Trying whether")
            assert connector.states()[0].open == 0

    run(main())


def test_a_probe_comes_from_the_source_address(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            chosen = service(f"connect = 127.0.0.1:{only.port}", "healthCheck = 1", "local = 127.0.0.9")
            only.sock.setblocking(False)
            async with kept_up(connector_of(chosen, log), log):
                probe, source = await asyncio.get_running_loop().sock_accept(only.sock)
                with probe:
                    assert source[0] == "127.0.0.9"

    run(main())


def test_fewest_open_connections_first(run: Run, log: Written) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            three = [stack.enter_context(Listening()) for _ in range(3)]
            lines = [f"connect = 127.0.0.1:{one.port}" for one in three]
            connector = connector_of(service(*lines, "failover = leastconn"), log)
            held = [await connector.connect(log.channel) for _ in range(6)]
            for sock, _ in held:
                stack.callback(sock.close)
            ports = [found.sockaddr[1] for _, found in held]
            assert sorted(ports[:3]) == sorted(ports[3:]) == sorted(one.port for one in three)
            freed = held[4][1]
            connector.release(freed)
            assert await reached(connector, log, 3) == [freed.sockaddr[1]] * 3

    run(main())


def test_equals_take_turns_by_leastconn(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            chosen = service(*pair(first.port, second.port, "failover = leastconn"))
            ports = await reached(connector_of(chosen, log), log, 4)
            assert ports == [first.port, second.port] * 2

    run(main())


def test_connections_that_are_being_made_count_by_leastconn(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            chosen = service(*pair(first.port, second.port, "failover = leastconn"))
            connector = connector_of(chosen, log)
            made = await asyncio.gather(*(connector.connect(log.channel) for _ in range(10)))
            for sock, _ in made:
                sock.close()
            assert [state.open for state in connector.states()] == [5, 5]

    run(main())


def test_a_target_that_is_written_twice_has_two_turns(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            lines = pair(first.port, first.port, f"connect = 127.0.0.1:{second.port}", "failover = rr")
            connector = connector_of(service(*lines), log)
            ports = await reached(connector, log, 6)
            assert ports == [first.port, first.port, second.port] * 2
            assert len(connector.states()) == 2

    run(main())
