"""What the supervisor asks of a generation. The messages to its workers are in `culvert.control`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from culvert.config.model import GlobalOptions
from culvert.latecomers import Arrivals
from culvert.log import Log
from culvert.metrics import Event
from culvert.watch import Watched


class Posts(Protocol):
    """What the workers of a generation do, each by its index."""

    def indices(self) -> Sequence[int]:
        """Those of all workers."""

    def missing(self, before: Self | None) -> Sequence[int]:
        """Those of the workers to fork, where the generation of `before` is current: without those whose work
        one of that generation does already, who stays."""

    def heir(self, index: int, successor: Self) -> int | None:
        """The index that a worker is to have in the successor, where it stays; None where it leaves."""

    def words(self, index: int) -> Sequence[bytes]:
        """Messages for a worker that has come to this index by `heir`."""


class Generation(Protocol):
    """One loaded configuration, ready to be forked: TLS contexts made, sockets bound, the log open."""

    options: GlobalOptions
    """What a reload does not change is as it was at the start."""
    log: Log
    """May be shared by generations. The supervisor closes it once no generation in use has it."""
    posts: Any
    """Its `Posts`."""
    watched: Watched | None
    """The files whose change is to lead to a reload; None where no change is to."""

    @property
    def summary(self) -> str:
        """What it serves, in a few words."""

    def announce(self) -> None:
        """Log what is bound and that connections are accepted: this generation is current from now on."""

    def run_worker(self, control: socket.socket, index: int) -> int:
        """Be a worker, in a process of its own; returns its exit status.

        It gives up its privileges, sends READY once it serves and obeys what it is sent. The end of the
        channel means that the supervisor is gone: the worker stops.
        """

    def bury(self, pid: int) -> None:
        """Take note that a worker, of this or of an earlier generation, has ended, however that happened."""

    def administers(self, index: int) -> bool:
        """Whether the process of this index is that of the admin endpoint, which may ask for things."""

    def note(self, event: Event) -> None:
        """Count what has happened to the daemon."""

    def disown(self, heir: Self) -> None:
        """In a new worker of `heir`: close every listening socket that `heir` does not share.

        Otherwise its port would stay open, with nobody to accept, after this generation is gone. It
        concerns the one process: nothing is unlinked.
        """

    def turn_away_clients(self) -> Arrivals:
        """Let no client begin to connect any more, in any process. Those who had begun are returned; once
        none of them is expected, `stop_listening`.
        """

    def stop_listening(self) -> None:
        """Close, and unlink, every listening socket of a service; the admin endpoint's go on to `retire`."""

    def retire(self, successor: Self | None) -> None:
        """Close, and unlink, every listening socket that `successor` does not share."""


Build = Callable[[Any], Generation]
"""Loads the configuration. It is given None, or the current generation, whose sockets and log the new one
may share, and leaves that as it was. Raises ConfigurationError."""
