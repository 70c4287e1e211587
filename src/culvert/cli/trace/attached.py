"""A trace of a daemon that runs, by its admin endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from dataclasses import asdict, dataclass

from culvert import worker
from culvert.cli.daemon.client import AdminClient
from culvert.cli.daemon.errors import AdminError
from culvert.cli.faults import say
from culvert.cli.trace.output import SIGNALS, Output
from culvert.trace import Record, Wants, from_line
from culvert.trace.events import LINE_LIMIT

_FAILED = 1


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be seen of the daemon; None is everything."""

    service: str | None
    connection: str | None
    wants: Wants

    def body(self) -> dict[str, object]:
        """What is posted to the endpoint."""
        chosen = {"service": self.service, "connection": self.connection}
        return asdict(self.wants) | {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to end, in records and in seconds; None for never."""

    records: int | None
    seconds: float | None


def run(client: AdminClient, chosen: Chosen, bounds: Bounds, output: Output) -> int:
    """Trace until a signal, a bound or the daemon's end; returns the status."""
    try:
        sock = client.opened("/trace", chosen.body())
    except AdminError as error:
        say(str(error))
        return _FAILED
    with worker.running_loop() as loop, sock:
        status = loop.run_until_complete(_attach(sock, bounds, output))
    return _FAILED if output.failed else status


async def _attach(sock: socket.socket, bounds: Bounds, output: Output) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine that runs is one's
    stopped: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not stopped:
            stopped.append(number)
            task.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        with contextlib.suppress(TimeoutError):
            stream, writer = await asyncio.open_connection(sock=sock, limit=LINE_LIMIT)
            with contextlib.closing(writer):
                async with asyncio.timeout(bounds.seconds):
                    return await _show(stream, bounds.records, output)
    except asyncio.CancelledError:
        if not stopped:
            raise
    return 0


async def _show(stream: asyncio.StreamReader, records: int | None, output: Output) -> int:
    """Show events to their end, or up to so many records."""
    left = records
    try:
        while line := await stream.readline():
            event = from_line(line)
            output.show(event)
            sys.stdout.flush()
            if left is not None and isinstance(event, Record):
                left -= 1
                if not left:
                    return 0
    except OSError:
        say("The connection to the admin endpoint broke off")
        return _FAILED
    except ValueError as error:  # a line that is too long is one, too
        say(f"This is not the trace of a service: {error}")
        return _FAILED
    say("The daemon has ended the trace", ".")
    return 0
