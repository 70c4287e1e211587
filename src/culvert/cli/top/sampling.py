"""Asks the daemon, in a thread: however long it takes, the keys are heeded meanwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from culvert.cli.daemon.client import AdminClient
from culvert.cli.daemon.documents import Connections, Status
from culvert.cli.daemon.errors import DaemonError
from culvert.cli.daemon.reading import request_end
from culvert.cli.top.rates import Sample


@dataclass(frozen=True, slots=True)
class Trouble:
    """The daemon did not answer as it should."""

    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """What came of an order."""

    text: str


News = Sample | Trouble | Told


def look(client: AdminClient) -> Sample:
    """Ask once. Raises DaemonError."""
    status = Status.of(client.get("/status"))
    return Sample(time.monotonic(), status, Connections.of(client.get("/connections")))


class Sampler:
    """Looks every `interval` seconds from `start` on; `wake` is called, in its thread, when there is news."""

    def __init__(self, client: AdminClient, interval: float, wake: Callable[[], None]) -> None:
        self.interval = interval
        self._client = client
        self._wake = wake
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        # A daemon's answer is not waited for at the end.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hasten(self) -> None:
        """Look now."""
        self._orders.put(None)

    def end(self, ident: str) -> None:
        """Have a connection ended, and look."""
        self._orders.put(ident)

    def news(self) -> list[News]:
        """What there is since the last time."""
        found: list[News] = []
        while True:
            try:
                found.append(self._news.get_nowait())
            except queue.Empty:
                return found

    def _run(self) -> None:
        while True:
            try:
                self._tell(look(self._client))
            except DaemonError as error:
                self._tell(Trouble(str(error)))
            try:
                ident = self._orders.get(timeout=self.interval)
            except queue.Empty:
                continue
            if ident is not None:
                self._tell(Told(self._end(ident)))

    def _end(self, ident: str) -> str:
        try:
            return f"{request_end(self._client, ident)} connection(s) ended"
        except DaemonError as error:
            return str(error)

    def _tell(self, news: News) -> None:
        self._news.put(news)
        self._wake()
