"""What the supervisor and a generation agree on: the calls, the messages between processes, the statuses."""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from typing import Protocol

from culvert.config.model import GlobalOptions
from culvert.log import Log

READY = b"ready"
"""What a worker sends on its control channel once it serves; the other messages are what it is sent."""
DRAIN = b"drain"
STOP = b"stop"
LIST = b"list"
LOG = b"log"


class ExitStatus(enum.IntEnum):
    """How the daemon, or one worker, ended.

    OK: it was told to. CONFIGURATION: the operator's fault, found by the command line, by the supervisor (the
    pid file) or by a worker (the jail). FAILED_START: the workers did not get ready for another reason (2 is
    the command line's, for wrong usage). CRASH: a fault of culvert's own (EX_SOFTWARE of sysexits(3)).
    """

    OK = 0
    CONFIGURATION = 1
    FAILED_START = 3
    CRASH = 70


class Generation(Protocol):
    """One loaded configuration, ready to be forked: TLS contexts made, sockets bound, the log open."""

    options: GlobalOptions
    """To be read as a worker starts: on a reload the supervisor puts back what a reload does not change."""
    log: Log
    """May be shared by generations. The supervisor closes it once no generation in use has it."""
    workers: int

    def announce(self) -> None:
        """Log what is bound and that connections are accepted: this generation is current from now on."""

    def run_worker(self, control: socket.socket, index: int) -> int:
        """Be a worker, in a process of its own; returns its exit status.

        It gives up its privileges, sends READY once it serves and obeys what it is sent. The end of the
        channel means that the supervisor is gone: the worker stops.
        """

    def disown(self, heir: Generation) -> None:
        """In a new worker of `heir`: close every listening socket that `heir` does not share.

        Otherwise its port would stay open, with nobody to accept, after this generation is gone. It
        concerns the one process: nothing is unlinked.
        """

    def retire(self, successor: Generation | None) -> None:
        """Close, and unlink, every listening socket that `successor` does not share."""


Build = Callable[[Generation | None], Generation]
"""Loads the configuration. It is given the current generation, whose sockets and log the new one may share,
and leaves it as it was. Raises ConfigurationError."""
