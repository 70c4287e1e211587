"""When a client tries datagrams, and when it makes do with TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from culvert.config import Debug
from culvert.log import Log
from culvert.vpn.datagram.uplink import FIRST_PAUSE, LONGEST_PAUSE, Choice, DatagramRedial
from culvert.vpn.redial import Backoff


def test_datagrams_are_tried_first() -> None:
    assert Choice().datagrams(1000.0)


def test_after_each_failure_they_are_tried_later() -> None:
    choice, now, pauses = Choice(), 1000.0, []
    for _ in range(6):
        pauses.append(choice.failed(now))
        assert not choice.datagrams(now + pauses[-1] - 1)
        now += pauses[-1]
        assert choice.datagrams(now)
    assert pauses == [FIRST_PAUSE, 120.0, 240.0, 480.0, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_link_that_lasts_makes_up_for_failures() -> None:
    choice = Choice()
    choice.failed(1000.0)
    choice.failed(2000.0)
    choice.lasted(1000.0)
    assert choice.datagrams(2000.0)
    assert choice.failed(3000.0) == FIRST_PAUSE


def test_a_link_that_is_soon_over_does_not() -> None:
    choice = Choice()
    choice.failed(1000.0)
    choice.lasted(FIRST_PAUSE)
    assert not choice.datagrams(1000.0)
    assert choice.failed(2000.0) == 2 * FIRST_PAUSE


class Links:
    """Connections that a test makes, meets and ends: with True over datagrams."""

    def __init__(self) -> None:
        self.made: list[tuple[bool, asyncio.Future[None]]] = []
        self.choice = Choice()
        log = Log(()).channel(Debug(5, 3), "vpn")
        self.redial = DatagramRedial(self._launch, log, self.choice, Backoff(lambda: -1.0))
        self._changed = asyncio.Event()

    def _launch(self, over: bool) -> asyncio.Task[None]:
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.made.append((over, end))
        self._changed.set()

        async def live() -> None:
            await end

        return asyncio.ensure_future(live())

    async def count(self, number: int) -> None:
        """Wait until so many were made."""
        while len(self.made) < number:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 5)
        await asyncio.sleep(0)

    async def meet(self) -> None:
        self.redial.met()
        await asyncio.sleep(0.01)

    def end(self, number: int) -> None:
        self.made[number][1].set_result(None)

    def lives(self, number: int) -> bool:
        return not self.made[number][1].done()


def play(story: Callable[[Links], Awaitable[None]]) -> list[bool]:
    """Over what connections were made, in a story that is told while the client runs."""

    async def run() -> list[bool]:
        links = Links()
        client = asyncio.ensure_future(links.redial.run())
        await asyncio.wait_for(story(links), 10)
        client.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await client
        for _, end in links.made:
            if not end.done():
                end.set_result(None)
        return [over for over, _ in links.made]

    return asyncio.run(run())


def test_where_datagrams_do_not_get_through_tls_is_next() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.end(0)
        await links.count(2)
        await links.meet()
        assert len(links.made) == 2

    assert play(story) == [True, False]


def test_a_link_over_tls_goes_on_until_one_over_datagrams_has_met_the_server() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.end(0)
        await links.count(2)
        links.choice.again_at = 0.0  # it is time again
        await links.meet()
        await links.count(3)
        assert links.lives(1)
        await links.meet()
        links.end(1)  # as its successor takes its place
        await asyncio.sleep(0.01)
        assert links.lives(2)

    assert play(story) == [True, False, True]


def test_a_link_over_tls_stays_where_datagrams_fail_again() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.end(0)
        await links.count(2)
        links.choice.again_at = 0.0
        await links.meet()
        await links.count(3)
        links.end(2)
        await asyncio.sleep(0.05)
        assert links.lives(1)
        assert len(links.made) == 3

    assert play(story) == [True, False, True]


def test_a_link_that_ends_is_made_again_over_datagrams() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        await links.meet()
        links.end(0)
        await links.count(2)
        await links.meet()

    assert play(story) == [True, True]


def test_a_link_that_is_answered_no_more_is_made_again_over_tls() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        await links.meet()
        links.redial.unanswered()
        links.end(0)
        await links.count(2)
        await links.meet()
        assert not links.choice.datagrams(asyncio.get_running_loop().time())

    assert play(story) == [True, False]


def test_a_worn_link_lives_until_the_new_one_has_met_the_server() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        await links.meet()
        links.redial.renew()
        await links.count(2)
        assert links.lives(0)
        links.redial.renew()  # said of the old one once more
        await links.meet()
        links.end(0)
        await asyncio.sleep(0.01)
        assert len(links.made) == 2

    assert play(story) == [True, True]


@pytest.mark.parametrize("worn", [False, True])
def test_a_server_that_is_away_is_asked_over_tls_meanwhile(worn: bool) -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.end(0)
        for number in range(1, 4):
            await links.count(number + 1)
            if worn:
                links.redial.renew()
            links.end(number)

    assert play(story)[:4] == [True, False, False, False]
