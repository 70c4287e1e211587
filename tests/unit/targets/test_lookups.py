"""Answers of the resolver that are kept, and stand in for those that do not come."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from culvert.address import Address, HostPort
from culvert.targets.endpoint import Endpoint
from culvert.targets.lookups import Lookups

TARGET = HostPort("vpn.example.com", 4430)
FOUND = (Endpoint(TARGET, socket.AF_INET, ("192.0.2.1", 4430)),)


class Resolver:
    """A resolver that answers, fails, or does not answer before it is told."""

    def __init__(self) -> None:
        self.fails = False
        self.free = threading.Event()
        self.free.set()

    def find(self, target: Address) -> tuple[Endpoint, ...]:
        self.free.wait(10)
        if self.fails:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return FOUND


def test_the_last_answer_stands_in_where_a_look_up_fails() -> None:
    async def story() -> None:
        resolver = Resolver()
        lookups = Lookups(asyncio.get_running_loop(), resolver.find, 5.0)
        told: list[Address] = []
        lookups.on_stand_in = told.append
        assert await lookups.start(TARGET) == FOUND
        assert told == []
        resolver.fails = True
        assert await lookups.start(TARGET) == FOUND
        assert told == [TARGET]

    asyncio.run(asyncio.wait_for(story(), 10))


def test_the_last_answer_stands_in_where_none_comes() -> None:
    async def story() -> None:
        resolver = Resolver()
        lookups = Lookups(asyncio.get_running_loop(), resolver.find, 0.01)
        await lookups.start(TARGET)
        resolver.free.clear()
        resolver.fails = True
        assert await lookups.start(TARGET) == FOUND
        assert await lookups.start(TARGET) == FOUND
        resolver.free.set()
        while lookups._under_way:
            await asyncio.sleep(0.001)
        assert await lookups.start(TARGET) == FOUND

    asyncio.run(asyncio.wait_for(story(), 10))


@pytest.mark.parametrize("keep", [None, 0.01])
def test_nothing_stands_in_where_there_was_no_answer_yet_or_none_is_kept(keep: float | None) -> None:
    async def story() -> None:
        resolver = Resolver()
        lookups = Lookups(asyncio.get_running_loop(), resolver.find, keep)
        if keep is None:
            await lookups.start(TARGET)
        resolver.fails = True
        with pytest.raises(OSError, match="Temporary failure"):
            await lookups.start(TARGET)

    asyncio.run(asyncio.wait_for(story(), 10))
