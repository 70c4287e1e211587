"""The traces that are attached to a daemon: requests that workers are sent, those included of later."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

MOST = 8
"""Traces at a time. Each may keep some megabytes in each worker."""


class Attached:
    """The requests, each with its socket, by which workers bring what they see.

    That a reader has gone is noticed when the next one comes, or the next worker: so long his socket stays.
    """

    def __init__(self) -> None:
        self._traces: list[tuple[bytes, socket.socket]] = []
        self._closed = False

    def __iter__(self) -> Iterator[tuple[bytes, socket.socket]]:
        """The requests whose reader is still there."""
        self._prune()
        return iter(self._traces)

    def add(self, message: bytes, descriptor: int) -> bool:
        """Keep a request, and a copy of its socket; False where there are too many, or after `close`."""
        self._prune()
        if self._closed or len(self._traces) >= MOST:
            return False
        self._traces.append((message, socket.socket(fileno=os.dup(descriptor))))
        return True

    def close(self) -> None:
        """Let go of all of them: nobody joins them any more, nor another one."""
        self._closed = True
        for _, sock in self._traces:
            sock.close()
        self._traces.clear()

    def _prune(self) -> None:
        """Let go of those whose reader has gone."""
        kept = []
        for message, sock in self._traces:
            if _gone(sock):
                sock.close()
            else:
                kept.append((message, sock))
        self._traces = kept


def _gone(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)  # a hangup is always told
    return bool(poll.poll(0))
