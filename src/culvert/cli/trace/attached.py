"""A trace of a daemon that runs, by its admin endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import asdict, dataclass

from culvert import worker
from culvert.cli.admin_client import AdminEndpoint, posted
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to end, in records and in seconds; None for never."""

    records: int | None
    seconds: float | None


def run(endpoint: AdminEndpoint, chosen: Chosen, bounds: Bounds, output: Output) -> int:
    """Trace until a signal, a bound or the daemon's end; returns the status. Raises ConfigurationError."""
    with worker.running_loop() as loop:
        status = loop.run_until_complete(_attach(endpoint, chosen, bounds, output))
    return _FAILED if output.failed else status


async def _attach(endpoint: AdminEndpoint, chosen: Chosen, bounds: Bounds, output: Output) -> int:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine that runs is one's
    stopped: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not stopped:
            stopped.append(number)
            task.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    body: dict[str, object] = asdict(chosen.wants)
    if chosen.service is not None:
        body["service"] = chosen.service
    if chosen.connection is not None:
        body["connection"] = chosen.connection
    try:
        with contextlib.suppress(TimeoutError):
            async with (
                posted(endpoint, "/trace", body, line_limit=LINE_LIMIT) as stream,
                asyncio.timeout(bounds.seconds),
            ):
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
