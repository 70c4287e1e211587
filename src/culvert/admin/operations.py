"""What the endpoint can have done: in words that a supervisor passes on, or by the process that serves."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from culvert.admin.attachment import Attachment
from culvert.admin.request import Refused, Streamed
from culvert.control import MESSAGE_LIMIT, Action, Request
from culvert.ledger import Ledger
from culvert.tally import Cell, Tally
from culvert.trace import Wants

PATIENCE = 3.0
"""Seconds for all workers to answer."""

RELOAD_PATIENCE = 20.0
"""Seconds after which a reload that is not done yet is said to be under way."""

_LOOK = 0.05
ANSWER_LIMIT = 65536
"""Bytes of one answer: some dozens of connections."""


class Outcome(enum.Enum):
    """What came of a reload."""

    DONE = "done"
    FAILED = "failed"
    UNDER_WAY = "under way"


@dataclass(slots=True)
class Listing:
    """Connections, each as a JSON object; `total` counts also those that were left out, and `complete` is
    false where a worker did not answer.
    """

    connections: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    complete: bool = True


class Operations(Protocol):
    """What can be done with a daemon."""

    async def connections(self, limit: int, service: str | None) -> Listing:
        """The connections that live, of all workers, the oldest of each first."""

    async def end(self, ident: str) -> int:
        """End the connections that the log calls so; how many there were."""

    async def set_level(self, level: int, service: str | None) -> None:
        """Log what is of this level and above, of one service or of everything, until a reload."""

    async def reload(self) -> Outcome:
        """Load the configuration again."""

    def trace(self, service: str | None, ident: str, wants: Wants) -> Streamed:
        """Show connections that begin from now on, of all processes and generations. Raises Refused."""

    async def stop(self) -> None:
        """Have the daemon drain and end; a second time, end what is left."""


class Supervised:
    """Has it done by the supervisor: a request, and a socket that whoever answers writes to."""

    def __init__(self, channel: socket.socket, ledger: Ledger) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._daemon = ledger.tally("")

    async def connections(self, limit: int, service: str | None) -> Listing:
        answers, complete = await self._ask(Request(Action.LIST, limit=limit, service=service))
        found = listing(answers, limit)
        found.complete = complete
        return found

    async def end(self, ident: str) -> int:
        answers, _ = await self._ask(Request(Action.END, ident=ident))
        return sum(answer.get("ended", 0) for answer in answers)

    async def set_level(self, level: int, service: str | None) -> None:
        await self._tell(Request(Action.LEVEL, level=level, service=service))

    async def reload(self) -> Outcome:
        refuse_while_stopping(self._daemon)
        _, heard = await self._ask(Request(Action.RELOAD))
        return await outcome(self._daemon) if heard else Outcome.UNDER_WAY

    def trace(self, service: str | None, ident: str, wants: Wants) -> Streamed:
        return Attachment(self._send(Request(Action.TRACE, ident, service=service, wants=wants)))

    async def stop(self) -> None:
        await self._tell(Request(Action.STOP))

    async def _tell(self, request: Request) -> None:
        """Have something done at once. Raises Refused where it is not known to be done."""
        _, heard = await self._ask(request)
        if not heard:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "not every process has answered in time")

    async def _ask(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """Send a request to the supervisor; what is answered, and whether everybody has in time."""
        answers = []
        with self._send(request) as ours:
            ours.setblocking(False)
            try:
                async with asyncio.timeout(PATIENCE):
                    while data := await self._loop.sock_recv(ours, ANSWER_LIMIT):
                        answers.append(json.loads(data))
            except (TimeoutError, ConnectionError, ValueError):  # a datagram that was cut is no JSON
                return answers, False
        return answers, True

    def _send(self, request: Request) -> socket.socket:
        """Send a request to the supervisor; where the answers come."""
        message = request.encode()
        if len(message) > MESSAGE_LIMIT:
            raise Refused(HTTPStatus.BAD_REQUEST, "the name of the service is too long to be passed on")
        with contextlib.ExitStack() as stack:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                stack.enter_context(theirs)
                stack.callback(ours.close)
                socket.send_fds(self._channel, [message], [theirs.fileno()])
            except OSError:
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the supervisor takes no request now") from None
            stack.pop_all()
            theirs.close()
        return ours


def listing(answers: list[dict[str, Any]], limit: int) -> Listing:
    """What workers answered, in one list."""
    connections = [one for answer in answers for one in answer.get("connections", ())]
    return Listing(connections[:limit], sum(answer.get("total", 0) for answer in answers))


def refuse_while_stopping(daemon: Tally) -> None:
    """Raises Refused where no reload will be done any more."""
    if daemon.ended[Cell.STOPPING]:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the daemon is stopping")


async def outcome(daemon: Tally) -> Outcome:
    """What comes of a reload that has just been asked for, which may have to wait for another one."""
    row = daemon.ended
    due = row[Cell.RELOADS_DUE]
    for _ in range(int(RELOAD_PATIENCE / _LOOK)):
        if row[Cell.RELOADS] + row[Cell.RELOADS_FAILED] >= due:
            return Outcome.FAILED if row[Cell.RELOAD_FAILED] else Outcome.DONE
        await asyncio.sleep(_LOOK)
    return Outcome.UNDER_WAY
