"""One worker as the supervisor holds it: a forked process and the channel to it.

A child starts with a clean slate. Signals are blocked around the fork, for one that reached the child before
it let go of the wake-up pipe would arrive in the supervisor. A worker learns of the supervisor's death by the
end of its channel, so nobody but the supervisor may hold the supervisor's end of it: each child closes those
of all the others (`forget`).
"""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from culvert.control import ALIVE, DRAINING, ENDING, FAILED, MESSAGE_LIMIT, READY
from culvert.errors import ConfigurationError
from culvert.log import Channel
from culvert.privileges import ExitStatus
from culvert.supervisor.contract import Generation


@dataclass(slots=True)
class Worker:
    """A forked process, from `fork_worker` until it is reaped; times are those of the monotonic clock.

    It is killed at its `deadline`, and told to stop when it is still there at `drained_by`. Its start had
    been held back for `pause` seconds. `connections` is how many it had when it last said so, `cut` how many
    of them it has ended.
    """

    pid: int
    index: int
    channel: socket.socket
    generation: Generation
    started: float
    deadline: float = math.inf
    pause: float = 0.0
    ready: bool = False
    draining: bool = False
    drained_by: float = math.inf
    connections: int = 0
    cut: int = 0
    owes_answer: bool = False
    complaint: str = ""
    stopping: bool = False
    passed: list[int] = field(default_factory=list)
    """Descriptors that came with the last message; `close_passed` ends them."""

    def __str__(self) -> str:
        return f"Worker {self.index} (pid {self.pid})"

    @property
    def duty(self) -> str:
        """What the worker has to do before its deadline."""
        return "stop" if self.stopping else "answer" if self.ready else "get ready"

    def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a message. Raises OSError where the worker is dying, or has read nothing for very long."""
        socket.send_fds(self.channel, [message], list(descriptors))

    def receive(self) -> bytes:
        """The next message, which must be there; empty once the worker has closed its end."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.channel, MESSAGE_LIMIT, 1)
        except ConnectionError:
            return b""
        self.close_passed()
        self.passed = descriptors
        return message

    def close_passed(self) -> None:
        """Close what came with the last message."""
        for fd in self.passed:
            os.close(fd)
        self.passed = []

    def last_words(self) -> str:
        """Why a worker that has ended could not serve, if it said so; closes the channel."""
        with self.channel:
            while message := self.receive():
                self.hear(message)
        return self.complaint

    def hear(self, message: bytes) -> None:
        """Note what a message says of the worker."""
        if message == READY:
            self.ready = True
        elif message == ALIVE:
            self.owes_answer = False
        elif message.startswith(DRAINING):
            self.draining = True
            self.connections = _number(message.removeprefix(DRAINING))
        elif message.startswith(ENDING):
            self.connections = self.cut = _number(message.removeprefix(ENDING))
        elif message.startswith(FAILED):
            self.complaint = message.removeprefix(FAILED).decode("utf-8", "replace")


def _number(digits: bytes) -> int:
    """A number that a worker, which serves strangers, sent; what is none counts nothing."""
    return int(digits) if digits.isdigit() and len(digits) < 10 else 0


def fork_worker(generation: Generation, index: int, forget: Callable[[], None]) -> Worker:
    """Fork a worker; `forget` is called in the child to let go of what is not its own. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    gc.freeze()  # a collection in the child would write to, and so copy, every page it shares
    try:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _live(generation, theirs, index, forget)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        gc.unfreeze()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Worker(pid, index, ours, generation, time.monotonic())


def _live(generation: Generation, control: socket.socket, index: int, forget: Callable[[], None]) -> NoReturn:
    """The child's whole life: it never returns into the supervisor's stack."""
    status: int = ExitStatus.CRASH
    log = main_channel(generation)
    try:
        forget()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        status = generation.run_worker(control, index)
    except ConfigurationError as error:
        status = ExitStatus.CONFIGURATION
        control.send((FAILED + str(error).encode())[:MESSAGE_LIMIT])
        for finding in error.diagnostics:
            log.error(str(finding))
    except BaseException:
        log.fault(f"Worker {index}")
    finally:
        _flush_and_exit(status)


def _flush_and_exit(status: int) -> NoReturn:
    """End a child without what the supervisor has registered for its own exit."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status)


def main_channel(generation: Generation) -> Channel:
    """Where the daemon itself, not one of its connections, writes."""
    return generation.log.channel(generation.options.debug, "main")
