"""A tunnel that is traced: TLS ends here, towards the clients, towards the server, or towards both.

It is served as any configuration is, by this one process. Where TLS ends towards both, two services meet in a
Unix socket, so each connection is two in the trace.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from culvert import config, worker
from culvert.address import show
from culvert.cli.faults import say
from culvert.cli.pass_phrase import Prompt
from culvert.cli.trace.output import Output
from culvert.config.model import Configuration
from culvert.errors import ConfigurationError
from culvert.generation import Generation, builder
from culvert.source import ConfigurationSource
from culvert.trace import Wants
from culvert.worker import Worker

_HEADER = "foreground = yes\nsyslog = no\npid =\ndebug = warning\nworkers = 0\n"


@dataclass(frozen=True, slots=True)
class Ends:
    """What the command line says of the two ends.

    `cert` and `key` are files: TLS from clients ends here. With `tls`, TLS to the server begins here. The
    options are lines of a service's section.
    """

    listen: str
    connect: str
    cert: str | None
    key: str | None
    tls: bool
    client_options: Sequence[str]
    server_options: Sequence[str]


class _Source(ConfigurationSource):
    """A configuration that is in no file."""

    def __init__(self, text: str) -> None:
        super().__init__(-1)
        self.kind, self.name = "the", "command line"
        self._lines = text

    def load(self) -> Configuration:
        return config.loads(self._lines, "command line")


def run(ends: Ends, wants: Wants, output: Output) -> int:
    """Trace until a signal; returns the exit status. Raises ConfigurationError."""
    with tempfile.TemporaryDirectory(prefix="culvert-trace-") as folder:
        generation = builder(_Source(configuration(ends, str(Path(folder) / "between"))), Prompt())(None)
        try:
            with worker.running_loop() as loop:
                loop.run_until_complete(_serve(generation, wants, output))
        finally:
            generation.retire(None)
            generation.log.close()
    return 1 if output.failed else 0


def configuration(ends: Ends, between: str) -> str:
    """The configuration that the command line stands for. Raises ConfigurationError."""
    accept, connect = f"accept = {ends.listen}", f"connect = {ends.connect}"
    sections = []
    if ends.cert is not None:
        credentials = [f"cert = {ends.cert}", f"key = {ends.key or ends.cert}"]
        target = f"connect = {between}" if ends.tls else connect
        sections.append(["[client]", accept, target, *credentials, *ends.client_options])
    if ends.tls:
        source = accept if ends.cert is None else f"accept = {between}"
        sections.append(["[server]", "client = yes", source, connect, *ends.server_options])
    for line in (line for section in sections for line in section):
        if "\n" in line or "\r" in line:
            raise ConfigurationError.single(f"{line!r} has more than one line")
    return _HEADER + "".join(f"{line}\n" for section in sections for line in section)


async def _serve(generation: Generation, wants: Wants, output: Output) -> None:
    loop = asyncio.get_running_loop()
    worker.report_faults(loop, generation.main)
    running = Worker(generation.assignment(0))
    waiting = asyncio.Event()
    subscription = running.tracing.subscribe(wants, waiting.set)
    running.start()
    generation.announce()
    for bound in generation.bound()[:1]:
        say(f"Listening on {show(bound.address)}", ".")
    try:
        await output.follow(subscription, waiting)
    finally:
        await running.end()
    output.show_all(subscription)
