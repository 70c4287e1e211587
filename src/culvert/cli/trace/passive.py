"""A relay that changes nothing and shows what can be seen of TLS from outside: it has no key."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

from culvert import worker
from culvert.address import Address, HostPort, UnixPath, show
from culvert.cli.faults import say
from culvert.cli.trace.output import Output
from culvert.config.addresses import ACCEPT, CONNECT
from culvert.config.values import BadValue, Form
from culvert.errors import ConfigurationError, os_reason
from culvert.trace import Closed, Direction, Opened, TraceEvent, Tracing, Wants, Wire
from culvert.trace.events import Endpoint
from culvert.trace.wire import WireDirection

_CHUNK = 64 * 1024
_CONNECT_TIMEOUT = 10.0
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - what a port alone means for `accept` too
SERVICE = "passive"


def run(listen: str, connect: str, wants: Wants, output: Output) -> int:
    """Trace until a signal; returns the exit status. Raises ConfigurationError."""
    with worker.running_loop() as loop:
        loop.run_until_complete(_serve(_address(ACCEPT, listen), _address(CONNECT, connect), wants, output))
    return 1 if output.failed else 0


def _address(form: Form, written: str) -> HostPort:
    try:
        address: Address = form.parse(written)
    except BadValue as error:
        expected = error.expected or form.takes
        raise ConfigurationError.single(f'"{written}" is no address: expected {expected}') from None
    if isinstance(address, UnixPath):
        raise ConfigurationError.single(f'"{written}": without TLS of its own, a trace is for TCP only')
    return address


async def _serve(listen: HostPort, connect: HostPort, wants: Wants, output: Output) -> None:
    waiting = asyncio.Event()
    subscription = Tracing().subscribe(wants, waiting.set)
    relay = _Relay(connect, subscription.offer)
    try:
        server = await asyncio.start_server(
            relay.take, listen.host or _EVERY_ADDRESS, listen.port, limit=_CHUNK
        )
    except OSError as error:
        raise ConfigurationError.single(f"Cannot listen on {listen}: {os_reason(error)}") from None
    for sock in server.sockets:
        say(f"Listening on {show(sock.getsockname())}", ".")
    try:
        await output.follow(subscription, waiting)
    finally:
        server.close()
        await relay.end()
    output.show_all(subscription)


class _Relay:
    """Carries the connections of clients to one server."""

    def __init__(self, target: HostPort, emit: Callable[[TraceEvent], None]) -> None:
        self._target = target
        self._emit = emit
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin to carry a client's connection."""
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ident = str(next(self._numbers))
        client = _end(writer.get_extra_info("peername"))
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                there = await asyncio.open_connection(
                    self._target.host or "localhost", self._target.port, limit=_CHUNK
                )
        except OSError as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else os_reason(error)
            say(f"Cannot connect to {self._target}: {reason}")
            writer.transport.abort()
            return
        server = _end(there[1].get_extra_info("peername"))
        self._emit(Opened(ident, time.monotonic(), time.time(), SERVICE, client, server))
        ended = False
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, there[1], ident, Direction.TO_SERVER))
                both.create_task(self._pump(there[0], writer, ident, Direction.TO_CLIENT))
            ended = True
        except* OSError:
            pass  # a reset on one side: the other gets one too
        finally:
            for one in (writer, there[1]):
                one.close() if ended else one.transport.abort()
            self._emit(Closed(ident, time.monotonic()))

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, ident: str, direction: Direction
    ) -> None:
        seen = WireDirection(ident, direction)
        offset = 0
        while data := await source.read(_CHUNK):
            now = time.monotonic()
            self._emit(Wire(ident, now, direction, offset, data))
            offset += len(data)
            for record in seen.feed(data, now):
                self._emit(record)
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's word for a transport that is gone
            sink.write_eof()


def _end(name: object) -> Endpoint:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("unknown", 0)
