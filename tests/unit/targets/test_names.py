"""Names of targets: looked up again when their answers are old, without anybody's waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from culvert.errors import ConnectError, Unreached
from culvert.targets import Connector, Upkeep

from ..loops import Run
from .targets import (
    Listening,
    Names,
    Written,
    connector_of,
    descriptors,
    endpoint,
    reached,
    service,
    until,
)

SOON = 0.1
"""Seconds after which an answer is old here."""

LINE = "connect = name.test:1"


@asynccontextmanager
async def kept_up(connector: Connector, log: Written, answer_age: float = SOON) -> AsyncIterator[None]:
    task = asyncio.create_task(Upkeep(connector, log.channel, answer_age).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def asked(names: Names, times: int) -> None:
    """Wait until this many look-ups have begun."""
    while len(names.asked) < times:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("failover", ["prio", "rr", "leastconn"])
def test_a_name_is_not_kept_for_ever(run: Run, log: Written, failover: str) -> None:
    async def main() -> None:
        with Listening() as old, Listening() as new:
            first, second = (endpoint("name.test", one, 1) for one in (old, new))
            names = Names(**{"name.test": (first,)})
            connector = connector_of(service(LINE, f"failover = {failover}"), log, ((first,),), names)
            async with kept_up(connector, log):
                assert await reached(connector, log) == [old.port]
                names.answers["name.test"] = (second,)
                await until(log, f"name.test:1 is at 127.0.0.1:{new.port} now")
                assert await reached(connector, log, 3) == [new.port] * 3

    run(main())


def test_old_answers_are_used_while_the_resolver_hesitates(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            known = (endpoint("name.test", only, 1),)
            names = Names(**{"name.test": known})
            names.hold.clear()
            connector = connector_of(service(LINE), log, (known,), names)
            try:
                async with kept_up(connector, log):
                    await asked(names, 1)
                    start = asyncio.get_running_loop().time()
                    assert await reached(connector, log, 5) == [only.port] * 5
                    assert asyncio.get_running_loop().time() - start < 1.0
                    await asyncio.sleep(3 * SOON)
                    assert len(names.asked) == 1, "one look-up at a time"
            finally:
                names.hold.set()

    run(main())


def test_a_look_up_that_fails_changes_nothing_and_is_told_once(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            known = (endpoint("name.test", only, 1),)
            names = Names()
            connector = connector_of(service(LINE), log, (known,), names)
            async with kept_up(connector, log):
                await asked(names, 2)
                assert await reached(connector, log) == [only.port]
                assert log.text.count("cannot look up name.test:1 again: Name or service not known") == 1
                names.answers["name.test"] = known
                await until(log, f"name.test:1 is at 127.0.0.1:{only.port} now")

    run(main())


def test_a_name_without_an_answer_at_start_is_found_in_the_background(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            names = Names(**{"name.test": (endpoint("name.test", only, 1),)})
            connector = connector_of(service(LINE), log, (None,), names)
            async with kept_up(connector, log):
                await until(log, f"name.test:1 is at 127.0.0.1:{only.port} now")
                asked_before = len(names.asked)
                assert await reached(connector, log, 3) == [only.port] * 3
                assert len(names.asked) <= asked_before + 1

    run(main())


@pytest.mark.parametrize("failover", ["prio", "rr", "leastconn"])
def test_a_name_without_an_answer_at_start_is_found_by_a_client(
    run: Run, log: Written, failover: str
) -> None:
    async def main() -> None:
        with Listening() as only:
            names = Names(**{"name.test": (endpoint("name.test", only, 1),)})
            connector = connector_of(service(LINE, f"failover = {failover}"), log, (None,), names)
            assert await reached(connector, log, 3) == [only.port] * 3
            assert len(names.asked) == 1, "what was found is kept"

    run(main())


def test_who_waits_for_the_same_name_shares_one_look_up(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            names = Names(**{"name.test": (endpoint("name.test", only, 1),)})
            names.hold.clear()
            connector = connector_of(service(LINE), log, (None,), names)
            waiting = [asyncio.create_task(reached(connector, log)) for _ in range(20)]
            await asked(names, 1)
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
            names.hold.set()
            assert await asyncio.gather(*waiting[1:]) == [[only.port]] * 19
            assert len(names.asked) == 1

    run(main())


def test_a_name_that_hangs_leaves_the_next_target_its_share(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as other:
            names = Names()
            names.hold.clear()
            chosen = service(LINE, f"connect = 127.0.0.1:{other.port}", "TIMEOUTconnect = 1")
            known = (other.endpoint("127.0.0.1"),)
            connector = connector_of(chosen, log, (None, known), names)
            try:
                start = asyncio.get_running_loop().time()
                assert await reached(connector, log) == [other.port]
                assert asyncio.get_running_loop().time() - start < 0.95
            finally:
                names.hold.set()

    run(main())


def test_a_name_that_hangs_costs_timeoutconnect(run: Run, log: Written) -> None:
    async def main() -> None:
        names = Names()
        names.hold.clear()
        connector = connector_of(service(LINE, "TIMEOUTconnect = 1"), log, (None,), names)
        try:
            with pytest.raises(ConnectError, match="No address to connect") as failure:
                await connector.connect(log.channel)
            assert failure.value.cause is Unreached.TIMED_OUT
            assert "Resolving name.test:1: TIMEOUTconnect exceeded" in log.text
        finally:
            names.hold.set()

    run(main())


def test_a_name_that_does_not_exist(run: Run, log: Written) -> None:
    async def main() -> None:
        connector = connector_of(service(LINE), log, (None,), Names())
        with pytest.raises(ConnectError, match="No address to connect") as failure:
            await connector.connect(log.channel)
        assert failure.value.cause is Unreached.UNRESOLVED
        assert "Error resolving name.test:1: Name or service not known" in log.text

    run(main())


def test_with_delay_each_connection_looks_up(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as old, Listening() as new:
            names = Names(**{"name.test": (endpoint("name.test", old, 1),)})
            connector = connector_of(service(LINE, "delay = yes"), log, (None,), names)
            async with kept_up(connector, log):
                assert await reached(connector, log, 2) == [old.port] * 2
                names.answers["name.test"] = (endpoint("name.test", new, 1),)
                assert await reached(connector, log, 2) == [new.port] * 2
                await asyncio.sleep(2 * SOON)
                assert len(names.asked) == 4, "nothing is looked up but for a connection"

    run(main())


def test_a_dead_address_of_a_name_with_delay_is_met_once(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as dead, Listening() as living:
            names = Names(**{"name.test": tuple(endpoint("name.test", one, 1) for one in (dead, living))})
            connector = connector_of(service(LINE, "delay = yes"), log, (None,), names)
            dead.close()
            assert await reached(connector, log, 5) == [living.port] * 5
            assert log.attempts(dead.port) == 1

    run(main())


def test_a_name_of_which_no_address_answers_is_looked_up_soon(run: Run, log: Written) -> None:
    """It may have moved: nobody waits for its answer to become old."""

    async def main() -> None:
        with Listening() as old, Listening() as new:
            first, second = (endpoint("name.test", one, 1) for one in (old, new))
            names = Names(**{"name.test": (second,)})
            connector = connector_of(service(LINE), log, ((first,),), names)
            async with kept_up(connector, log, answer_age=3600):
                old.close()
                with pytest.raises(ConnectError):
                    await connector.connect(log.channel)
                await until(log, f"name.test:1 is at 127.0.0.1:{new.port} now")
                assert await reached(connector, log) == [new.port]

    run(main())


def test_what_is_known_of_an_address_outlives_a_look_up(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as dead, Listening() as living:
            known = tuple(endpoint("name.test", one, 1) for one in (dead, living))
            names = Names(**{"name.test": known})
            connector = connector_of(service(LINE), log, (known,), names)
            dead.close()
            async with kept_up(connector, log):
                sock, found = await connector.connect(log.channel)
                await asked(names, 3)
                assert [(s.open, s.failures) for s in connector.states()] == [(0, 1), (1, 0)]
                sock.close()
                connector.release(found)

    run(main())


def test_a_connection_may_outlive_the_address_that_it_was_made_to(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as old, Listening() as new:
            first, second = (endpoint("name.test", one, 1) for one in (old, new))
            names = Names(**{"name.test": (second,)})
            connector = connector_of(service(LINE), log, ((first,),), names)
            sock, found = await connector.connect(log.channel)
            async with kept_up(connector, log):
                await until(log, f"name.test:1 is at 127.0.0.1:{new.port} now")
                names.answers["name.test"] = (first, second)
                await until(log, f"127.0.0.1:{old.port}, 127.0.0.1:{new.port} now")
            assert [state.open for state in connector.states()] == [1, 0], "it is still counted"
            sock.close()
            connector.release(found)
            assert [state.open for state in connector.states()] == [0, 0]

    run(main())


@pytest.mark.parametrize("target", ["127.0.0.1:1", "::1:1", "localhost:1", "1"])
def test_what_no_look_up_can_change_is_not_looked_up(run: Run, log: Written, target: str) -> None:
    async def main() -> None:
        names = Names()
        connector = connector_of(service(f"connect = {target}"), log, None, names)
        async with kept_up(connector, log):
            await asyncio.sleep(3 * SOON)
        assert names.asked == []

    run(main())


def test_a_look_up_that_hangs_does_not_hold_up_the_end(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            known = (endpoint("name.test", only, 1),)
            names = Names()
            names.hold.clear()
            connector = connector_of(service(LINE), log, (known,), names)
            try:
                before = descriptors()
                async with kept_up(connector, log):
                    await asked(names, 1)
                assert descriptors() == before
            finally:
                names.hold.set()

    run(main())


def test_states_name_a_target_without_an_address(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as only:
            chosen = service(LINE, f"connect = 127.0.0.1:{only.port}")
            connector = connector_of(chosen, log, (None, (only.endpoint("127.0.0.1"),)), Names())
            states = {state.target: state.address for state in connector.states()}
            assert states == {"name.test:1": "", f"127.0.0.1:{only.port}": f"127.0.0.1:{only.port}"}

    run(main())


def test_an_address_that_is_gone_when_it_is_reached_is_counted_all_the_same(run: Run, log: Written) -> None:
    """The name moves while a connection is on its way through the addresses that it had."""

    async def main() -> None:
        with Listening() as hesitant, Listening() as old, Listening() as new:
            hesitant.silence()
            first, second, moved = (endpoint("name.test", one, 1) for one in (hesitant, old, new))
            connector = connector_of(service(LINE), log, ((first, second),))
            (target,) = connector.targets
            # The address stays away, or comes back meanwhile.
            for times, back in enumerate(((moved,), (moved, second)), 1):
                target.adopt((first, second), 0.0)
                connector.health.reached(target.backends[0])
                on_its_way = asyncio.create_task(connector.connect(log.channel))
                while log.attempts(hesitant.port) < times:
                    await asyncio.sleep(0.01)
                target.adopt((moved,), 0.0)
                target.adopt(back, 0.0)
                sock, found = await on_its_way
                with sock:
                    assert found == second
                    assert sum(state.open for state in connector.states()) == (second in back)
                connector.release(found)
                assert not [state for state in connector.states() if state.open]

    run(main())
