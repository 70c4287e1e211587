"""Readiness on both loops: who is called when, what an RST leaves to be read, and what is forgotten."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from culvert.readiness import Interest, Readiness

from . import streams
from .loops import Run

CHUNK = 1000


class Owner:
    """Keeps an interest in one socket and writes down what it is told; reads a bounded piece at a time."""

    def __init__(self, readiness: Readiness, sock: socket.socket) -> None:
        self.readiness = readiness
        self.sock = sock
        self.taken = 0
        self.ended = False
        self.error: OSError | None = None
        self.writable = 0
        self.failures = 0
        self.interest = Interest(
            readiness, sock.fileno(), self.on_readable, self.on_writable, on_failure=self.on_failure
        )

    def on_readable(self) -> bool:
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            self.error = error
            self.interest.set(False, False)
            return True
        self.taken += len(data)
        if not data:
            self.ended = True
            self.interest.set(False, False)
        return True

    def on_writable(self) -> None:
        self.writable += 1

    def on_failure(self) -> None:
        self.failures += 1


def watching(
    test: Callable[[Owner, socket.socket], Awaitable[None]],
) -> Callable[[], Coroutine[Any, Any, None]]:
    """A test of one owner at one end of a TCP connection, the other end of which it is given."""

    async def main() -> None:
        readiness = Readiness(asyncio.get_running_loop())
        ours, theirs = streams.tcp_pair()
        with streams.closing(ours, theirs):
            owner = Owner(readiness, ours)
            await test(owner, theirs)
            owner.interest.close()
            readiness.forget(ours.fileno())
        readiness.close()

    return main


async def until(condition: Callable[[], bool]) -> None:
    """Returns once it holds. The test's own bound ends the wait."""
    while not condition():
        await asyncio.sleep(0.005)


def test_a_reader_is_called_while_it_is_asked_for(run: Run) -> None:
    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        theirs.send(b"x")
        await asyncio.sleep(0.02)
        assert owner.taken == 0
        owner.interest.set(True, False)
        await until(lambda: owner.taken == 1)
        owner.interest.set(False, False)
        theirs.send(b"y")
        await asyncio.sleep(0.02)
        assert owner.taken == 1
        owner.interest.set(True, False)
        await until(lambda: owner.taken == 2)

    run(main())


def test_a_writer_is_called_when_there_is_room(run: Run) -> None:
    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        sent = streams.fill(owner.sock)
        owner.interest.set(False, True)
        await asyncio.sleep(0.02)
        assert owner.writable == 0
        await streams.receive(theirs, sent)
        await until(lambda: owner.writable > 0)
        owner.interest.set(False, False)
        count = owner.writable
        await asyncio.sleep(0.02)
        assert owner.writable == count

    run(main())


def test_what_stands_before_an_end_is_read_to_it(run: Run) -> None:
    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        theirs.send(bytes(50 * CHUNK))
        theirs.close()
        owner.interest.set(True, False)
        await until(lambda: owner.ended)
        assert owner.taken == 50 * CHUNK

    run(main())


def test_an_rst_behind_data_is_found_by_small_reads(run: Run) -> None:
    """Linux gives up what was not read when the RST comes, but the RST itself must be heard of."""

    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        theirs.send(bytes(50 * CHUNK))
        await asyncio.sleep(0.02)
        streams.reset(theirs)
        owner.interest.set(True, False)
        await until(lambda: owner.error is not None or owner.ended)

    run(main())


def test_an_rst_while_nobody_reads_is_a_failure_at_once(run: Run) -> None:
    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        owner.interest.set(False, False)
        streams.reset(theirs)
        await until(lambda: owner.failures == 1)
        assert owner.error is None

    run(main())


def test_a_hang_up_before_an_interest_is_known_to_it(run: Run) -> None:
    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        owner.interest.close()
        streams.reset(theirs)
        await asyncio.sleep(0.02)
        later = Owner(owner.readiness, owner.sock)
        later.interest.set(True, False)
        await until(lambda: later.error is not None)
        later.interest.close()

    run(main())


def test_a_closed_interest_is_told_nothing_more(run: Run) -> None:
    @watching
    async def main(owner: Owner, theirs: socket.socket) -> None:
        owner.interest.set(True, True)
        owner.interest.close()
        owner.writable = 0
        streams.reset(theirs)
        await asyncio.sleep(0.05)
        assert (owner.error, owner.ended, owner.writable, owner.failures) == (None, False, 0, 0)

    run(main())


def test_a_number_that_is_used_again_starts_anew(run: Run) -> None:
    async def main() -> None:
        readiness = Readiness(asyncio.get_running_loop())
        numbers = set()
        for _ in range(20):
            ours, theirs = streams.tcp_pair()
            numbers.add(ours.fileno())
            with streams.closing(ours, theirs):
                owner = Owner(readiness, ours)
                owner.interest.set(True, False)
                await asyncio.sleep(0)
                assert (owner.error, owner.ended) == (None, False)
                streams.reset(theirs)
                await until(lambda owner=owner: owner.error is not None)  # type: ignore[misc]
                owner.interest.close()
                readiness.forget(ours.fileno())
        assert len(numbers) < 20
        readiness.close()

    run(main())


def test_many_hang_ups_at_once_are_all_told(run: Run) -> None:
    async def main() -> None:
        readiness = Readiness(asyncio.get_running_loop())
        pairs = [streams.tcp_pair() for _ in range(150)]
        owners = [Owner(readiness, ours) for ours, _ in pairs]
        for _, theirs in pairs:
            streams.reset(theirs)
        await until(lambda: all(owner.failures for owner in owners))
        for owner in owners:
            owner.interest.close()
            readiness.forget(owner.sock.fileno())
            owner.sock.close()
        readiness.close()

    run(main())


def test_an_owner_is_freed_without_the_collector(run: Run) -> None:
    async def main() -> None:
        readiness = Readiness(asyncio.get_running_loop())
        ours, theirs = streams.tcp_pair()
        with streams.closing(ours, theirs):
            owner = Owner(readiness, ours)
            owner.interest.set(True, True)
            await asyncio.sleep(0.01)
            owner.interest.close()
            readiness.forget(ours.fileno())
            reference = weakref.ref(owner)
            gc.collect()
            gc.disable()
            try:
                del owner
                await asyncio.sleep(0)
                assert reference() is None
            finally:
                gc.enable()
        readiness.close()

    run(main())
