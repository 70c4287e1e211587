"""What the endpoint says of a reload that it has asked a supervisor for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from culvert.admin.operations import Outcome, Supervised
from culvert.control import MESSAGE_LIMIT, Action, Request
from culvert.ledger import Ledger
from culvert.tally import Cell

Supervisor = Callable[[Ledger, socket.socket], None]
"""Does what is asked for, and answers by the socket."""


def reload_by(supervisor: Supervisor) -> Outcome:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ledger = Ledger()
    ledger.tally("")

    async def main() -> Outcome:
        asked = asyncio.create_task(Supervised(ours, ledger).reload())
        theirs.setblocking(False)
        await readable(theirs)
        message, descriptors, _, _ = socket.recv_fds(theirs, MESSAGE_LIMIT, 1)
        assert Request.decode(message).action is Action.RELOAD
        with socket.socket(fileno=descriptors[0]) as answers:
            supervisor(ledger, answers)
        return await asyncio.wait_for(asked, 10)

    with ours, theirs:
        return asyncio.run(main())


async def readable(sock: socket.socket) -> None:
    """Return once there is something to read."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, there.set)
    try:
        await asyncio.wait_for(there.wait(), 10)
    finally:
        loop.remove_reader(sock)


def test_one_that_worked_is_done() -> None:
    def supervisor(ledger: Ledger, _: socket.socket) -> None:
        ledger.tally("").ended[Cell.RELOADS] += 1

    assert reload_by(supervisor) is Outcome.DONE


def test_one_that_failed_is_told() -> None:
    def supervisor(ledger: Ledger, _: socket.socket) -> None:
        row = ledger.tally("").ended
        row[Cell.RELOADS_FAILED] += 1
        row[Cell.RELOAD_FAILED] = 1

    assert reload_by(supervisor) is Outcome.FAILED


def test_one_that_was_not_heard_of_is_not_said_to_be_done() -> None:
    def supervisor(_: Ledger, answers: socket.socket) -> None:
        answers.send(b'{"cut')

    assert reload_by(supervisor) is Outcome.UNDER_WAY
