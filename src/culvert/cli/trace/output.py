"""Where a trace goes: standard output as text or JSON, and a capture file."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import secrets
import signal
import sys
from pathlib import Path
from types import TracebackType

from culvert.cli.faults import say
from culvert.cli.trace.text import lines
from culvert.errors import ConfigurationError, os_reason
from culvert.trace import Subscription, TraceEvent
from culvert.trace.dissection import Dissector, ShownRecord, as_object
from culvert.trace.events import Secret
from culvert.trace.pcapng import CaptureWriter

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a trace."""


def _open_capture(path: str) -> int:
    """A descriptor to write a capture to. Raises OSError.

    A pipe or a device is written to as it is. A file is made anew and put in the place of what is there: who
    was permitted to read that may have it open, and would read on.
    """
    if Path(path).exists() and not Path(path).is_file():
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    fresh = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        Path(fresh).rename(path)
    except OSError:
        os.close(descriptor)
        Path(fresh).unlink()
        raise
    return descriptor


class CaptureFile:
    """A capture file, which its owner alone can read: it holds the secrets of its sessions."""

    def __init__(self, path: str) -> None:
        """Begin the file anew. Raises ConfigurationError."""
        self.path = path
        self.failed = False
        self._secret = False
        self._writer = CaptureWriter()
        try:
            self._descriptor = _open_capture(path)
        except OSError as error:
            raise ConfigurationError.single(f"Cannot write the capture {path}: {os_reason(error)}") from None
        self._put(self._writer.start())

    def write(self, event: TraceEvent) -> None:
        """Add an event. A file that cannot be written any more is given up, and said once; so is what it
        means that it holds secrets, when it gets the first one.
        """
        if isinstance(event, Secret) and not self._secret:
            self._secret = True
            meaning = "who has the file can read all that they say"
            say(f"{self.path} holds the secrets of these sessions: {meaning}", ":")
        self._put(self._writer.write(event))

    def close(self) -> None:
        os.close(self._descriptor)

    def _put(self, data: bytes) -> None:
        waiting = memoryview(data)
        try:
            while waiting and not self.failed:
                waiting = waiting[os.write(self._descriptor, waiting) :]
        except OSError as error:
            self.failed = True
            say(f"Cannot write the capture {self.path} any further: {os_reason(error)}")


class Output:
    """Shows events as they come. Use it as a context manager."""

    def __init__(self, *, as_json: bool, data: bool, capture: str | None) -> None:
        """Raises ConfigurationError where the capture cannot be written."""
        self._as_json = as_json
        self._data = data
        self._dissector = Dissector()
        self._capture = CaptureFile(capture) if capture is not None else None

    @property
    def failed(self) -> bool:
        """Whether a part of the trace could not be kept."""
        return self._capture is not None and self._capture.failed

    def show(self, event: TraceEvent) -> None:
        if self._capture is not None:
            self._capture.write(event)
        shown = self._dissector.read(event)
        if shown is None:
            return
        if isinstance(shown, ShownRecord) and not self._data:
            shown = dataclasses.replace(shown, data=b"")
        if self._as_json:
            print(json.dumps(as_object(shown)))
        else:
            for line in lines(shown):
                print(line)

    def show_all(self, subscription: Subscription) -> None:
        """Show what waits, and have it be seen."""
        for event in subscription.take():
            self.show(event)
        sys.stdout.flush()

    async def follow(self, subscription: Subscription, waiting: asyncio.Event) -> None:
        """Show what comes until a signal ends it; `waiting` is set whenever there is something."""
        loop = asyncio.get_running_loop()
        stopped: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            stopped.append(number)
            waiting.set()

        for number in SIGNALS:
            loop.add_signal_handler(number, stop, number)
        while not stopped:
            await waiting.wait()
            waiting.clear()
            self.show_all(subscription)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._capture is not None:
            self._capture.close()
