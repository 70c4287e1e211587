"""Several addresses for one connection: families by turns, the next one while one hesitates, one deadline."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.address import HostPort
from culvert.errors import ConnectError, Unreached
from culvert.targets import Endpoint
from culvert.targets.dial import cause_of
from culvert.targets.endpoint import ADDRESS_LIMIT, interleaved, usable

from ..loops import Run
from .targets import Listening, Written, closed_port, connector_of, descriptors, endpoint, reached, service

NAME = HostPort("name.test", 1)
PLACES = st.lists(st.tuples(st.sampled_from([socket.AF_INET, socket.AF_INET6]), st.integers(0, 99)))


@given(PLACES)
def test_families_take_turns_and_each_keeps_its_order(places: list[tuple[int, int]]) -> None:
    endpoints = [Endpoint(NAME, family, (str(number), 1)) for family, number in places]
    mixed = interleaved(endpoints)
    assert mixed[:1] == endpoints[:1]
    for family in (socket.AF_INET, socket.AF_INET6):
        assert [e for e in mixed if e.family == family] == [e for e in endpoints if e.family == family]
    families = [e.family for e in mixed]
    fewest = min(families.count(socket.AF_INET), families.count(socket.AF_INET6))
    assert all(a != b for a, b in itertools.pairwise(families[: 2 * fewest]))


@given(PLACES)
def test_each_address_of_a_name_is_used_once_and_not_too_many_are(places: list[tuple[int, int]]) -> None:
    endpoints = [Endpoint(NAME, family, (str(number), 1)) for family, number in places]
    used = usable(endpoints)
    assert len(used) == len(set(used)) == min(len(set(endpoints)), ADDRESS_LIMIT)
    assert set(used) <= set(endpoints)


def test_a_name_with_both_families_is_reached_by_whichever_answers(run: Run, log: Written) -> None:
    """Each address is connected to with a socket of its own family, in the resolver's order."""

    async def main() -> None:
        with Listening() as four, Listening("::1", four.port) as six:
            for order in ([four, six], [six, four]):
                chosen = service(f"connect = dual.test:{four.port}")
                known = tuple(one.endpoint("dual.test") for one in order)
                connector = connector_of(chosen, log, (known,))
                sock, found = await connector.connect(log.channel)
                with sock:
                    assert sock.family == order[0].sock.family == found.family
                    assert sock.getpeername()[:2] == order[0].sock.getsockname()[:2]
            six.close()
            connector = connector_of(chosen, log, (known,))
            assert await reached(connector, log, 3) == [four.port] * 3

    run(main())


@pytest.mark.parametrize("failover", ["prio", "rr", "leastconn"])
def test_a_silent_address_costs_a_moment(run: Run, log: Written, failover: str) -> None:
    async def main() -> None:
        with Listening("::1") as silent, Listening(port=silent.port) as other:
            silent.silence()
            chosen = service(f"connect = dual.test:{other.port}", f"failover = {failover}")
            known = (silent.endpoint("dual.test"), other.endpoint("dual.test"))
            connector = connector_of(chosen, log, (known,))
            before = descriptors()
            start = asyncio.get_running_loop().time()
            assert await reached(connector, log) == [other.port]
            assert 0.2 < asyncio.get_running_loop().time() - start < 1.0
            assert descriptors() == before, "the loser is closed"
            assert "TIMEOUTconnect" not in log.text

    run(main())


def test_a_silent_address_is_not_met_again(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening("::1") as silent, Listening(port=silent.port) as other:
            silent.silence()
            chosen = service(f"connect = dual.test:{other.port}")
            known = (silent.endpoint("dual.test"), other.endpoint("dual.test"))
            connector = connector_of(chosen, log, (known,))
            assert await reached(connector, log, 10) == [other.port] * 10
            assert log.text.count("s_connect: connecting ::1:") == 1

    run(main())


def test_a_silent_target_leaves_the_next_one_its_share_of_the_time(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as silent, Listening() as other:
            silent.silence()
            chosen = service(
                f"connect = 127.0.0.1:{silent.port}",
                f"connect = 127.0.0.1:{other.port}",
                "TIMEOUTconnect = 1",
            )
            connector = connector_of(chosen, log)
            start = asyncio.get_running_loop().time()
            assert await reached(connector, log) == [other.port]
            assert 0.4 < asyncio.get_running_loop().time() - start < 0.95
            assert await reached(connector, log, 5) == [other.port] * 5
            assert log.attempts(silent.port) == 1
            assert f"127.0.0.1:{silent.port} is set aside: no answer in 0.5 s" in log.text

    run(main())


def test_whoever_answers_first_is_used_where_all_are_slow(run: Run, log: Written) -> None:
    """The first target's attempt goes on beside the second one's: it answers late, and is used."""

    async def main() -> None:
        with Listening() as slow, Listening() as silent:
            slow.silence()
            silent.silence()
            chosen = service(
                f"connect = 127.0.0.1:{slow.port}",
                f"connect = 127.0.0.1:{silent.port}",
                "TIMEOUTconnect = 1.8",
            )
            connector = connector_of(chosen, log)
            asyncio.get_running_loop().call_later(0.2, slow.wake)  # the kernel asks again after one second
            assert await reached(connector, log) == [slow.port]
            assert log.attempts(silent.port) == 1

    run(main())


def test_timeoutconnect_is_for_all_targets_together(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            lines = [f"connect = 127.0.0.1:{one.silence().port}" for one in (first, second)]
            connector = connector_of(service(*lines, "TIMEOUTconnect = 1"), log)
            before = descriptors()
            start = asyncio.get_running_loop().time()
            with pytest.raises(ConnectError) as failure:
                await connector.connect(log.channel)
            assert 0.9 < asyncio.get_running_loop().time() - start < 1.5
            assert failure.value.cause is Unreached.TIMED_OUT
            assert log.text.count("TIMEOUTconnect exceeded") == 2
            assert descriptors() == before

    run(main())


def test_a_refused_address_makes_room_for_the_next_at_once(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening("::1") as gone, Listening(port=gone.port) as other:
            known = (gone.endpoint("dual.test"), other.endpoint("dual.test"))
            gone.close()
            connector = connector_of(service(f"connect = dual.test:{other.port}"), log, (known,))
            start = asyncio.get_running_loop().time()
            assert await reached(connector, log) == [other.port]
            assert asyncio.get_running_loop().time() - start < 0.2

    run(main())


def test_who_gives_up_in_the_middle_of_a_race_leaves_nothing(run: Run, log: Written) -> None:
    async def main() -> None:
        with Listening() as first, Listening() as second:
            first.silence()
            second.silence()
            known = tuple(endpoint("pair.test", one, 1) for one in (first, second))
            connector = connector_of(service("connect = pair.test:1"), log, (known,))
            before = descriptors()
            task = asyncio.create_task(connector.connect(log.channel))
            while log.text.count("s_connect: connecting") < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert descriptors() == before
            assert [state.open for state in connector.states()] == [0, 0]

    run(main())


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionRefusedError(111, ""), Unreached.REFUSED),
        (OSError(113, ""), Unreached.HOST_UNREACHABLE),
        (OSError(101, ""), Unreached.NETWORK_UNREACHABLE),
        (TimeoutError(), Unreached.TIMED_OUT),
        (OSError(110, ""), Unreached.TIMED_OUT),
        (OSError(1, ""), Unreached.FAILED),
    ],
)
def test_the_cause_of_a_failure(error: OSError, cause: Unreached) -> None:
    assert cause_of(error) is cause


def test_a_refusal_is_told_by_its_cause(run: Run, log: Written) -> None:
    async def main() -> None:
        connector = connector_of(service(f"connect = 127.0.0.1:{closed_port()}"), log)
        with pytest.raises(ConnectError) as failure:
            await connector.connect(log.channel)
        assert failure.value.cause is Unreached.REFUSED

    run(main())
