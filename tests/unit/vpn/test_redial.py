"""How a client connects again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from culvert.vpn.redial import LONGEST_PAUSE, Backoff, Redial


class Links:
    """Connections that a test makes, meets and ends."""

    def __init__(self) -> None:
        self.made: list[asyncio.Future[None]] = []
        self.redial = Redial(self._launch, Backoff(lambda: -1.0))  # no pause at all
        self._changed = asyncio.Event()

    def _launch(self) -> asyncio.Task[None]:
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.made.append(end)
        self._changed.set()

        async def live() -> None:
            await end

        return asyncio.ensure_future(live())

    async def count(self, number: int) -> None:
        """Waits until so many were made."""
        while len(self.made) < number:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 5)
        await asyncio.sleep(0)


def play(story: Callable[[Links], object]) -> Links:
    """A story of links, told while the client runs."""

    async def run() -> Links:
        links = Links()
        client = asyncio.ensure_future(links.redial.run())
        await asyncio.wait_for(asyncio.ensure_future(story(links)), 10)  # type: ignore[call-overload]
        client.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await client
        for end in links.made:
            if not end.done():
                end.set_result(None)
        return links

    return asyncio.run(run())


def test_a_link_that_ends_is_made_again() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.redial.met()
        await asyncio.sleep(0.01)
        links.made[0].set_result(None)
        await links.count(2)
        links.made[1].set_result(None)  # one that has met nobody
        await links.count(3)

    assert len(play(story).made) == 3


def test_a_worn_link_lives_until_the_new_one_has_met_the_server() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.redial.met()
        await asyncio.sleep(0.01)
        links.redial.renew()
        await links.count(2)
        assert not links.made[0].done()
        links.redial.renew()  # said of the old one once more
        links.redial.met()
        await asyncio.sleep(0.01)
        links.made[0].set_result(None)  # as the server's answer to the new one
        await asyncio.sleep(0.05)
        assert len(links.made) == 2

    play(story)


def test_a_new_link_that_fails_is_tried_again_beside_the_old_one() -> None:
    async def story(links: Links) -> None:
        await links.count(1)
        links.redial.met()
        await asyncio.sleep(0.01)
        links.redial.renew()
        await links.count(2)
        links.made[1].set_result(None)
        await links.count(3)
        assert not links.made[0].done()

    play(story)


def test_pauses_grow_and_are_bounded_and_never_the_same_for_all() -> None:
    longest = Backoff(lambda: 1.0)
    pauses = [longest.pause() for _ in range(12)]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[-1] == LONGEST_PAUSE
    shortest = Backoff(lambda: 0.0)
    assert shortest.pause() == 0.05
    longest.reset()
    assert longest.pause() == 0.1
