"""One attempt to connect to one address."""

from __future__ import annotations

import asyncio
import errno
import socket

from culvert.targets.target import Backend

_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EALREADY})


class Attempt:
    """An attempt that was begun. `outcome` is an errno, 0 for a success; None is no answer yet."""

    __slots__ = ("backend", "began", "outcome", "sock", "stalled")

    def __init__(self, backend: Backend, sock: socket.socket, began: float) -> None:
        """`sock` is about to be connected."""
        self.backend = backend
        self.sock = sock
        self.began = began
        self.stalled = False
        self.outcome: int | None = None
        backend.open += 1

    def connect(self) -> None:
        """Begin, and note the outcome where there is one at once.

        A target on this machine has answered when the call returns, which cannot say so yet: a second one
        does, and saves such a connection the way through the event loop.
        """
        address = self.backend.endpoint.sockaddr
        try:
            outcome = self.sock.connect_ex(address)
            if outcome == errno.EINPROGRESS:
                outcome = self.sock.connect_ex(address)
        except OSError as error:  # a path that is too long, for example
            outcome = error.errno or errno.EINVAL
        if outcome == errno.EISCONN:
            self.outcome = 0
        elif outcome not in _UNDER_WAY:
            self.outcome = outcome

    def take_outcome(self) -> int:
        """The outcome, now that the socket has become writable."""
        self.outcome = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return self.outcome

    def drop(self) -> None:
        """Give it up."""
        self.backend.open -= 1
        self.sock.close()


async def alone(loop: asyncio.AbstractEventLoop, attempt: Attempt, seconds: float) -> None:
    """Begin an attempt and wait for its outcome, but no longer than this.

    The loop's own call inside asyncio.timeout costs twice as much, for each connection of a server.
    """
    try:
        attempt.connect()
        if attempt.outcome is None:
            writable: asyncio.Future[bool] = loop.create_future()
            timer = loop.call_later(seconds, _answer, writable, False)
            loop.add_writer(attempt.sock.fileno(), _answer, writable, True)
            try:
                if await writable:
                    attempt.take_outcome()
            finally:
                timer.cancel()
                loop.remove_writer(attempt.sock.fileno())
    except BaseException:
        attempt.drop()
        raise


def _answer(waiting: asyncio.Future[bool], answered: bool) -> None:
    if not waiting.done():
        waiting.set_result(answered)
