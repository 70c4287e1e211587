"""The words of the control channel between the supervisor and a worker: one message a datagram."""

from __future__ import annotations

from collections.abc import Iterable

READY = b"ready"
"""From a worker: it serves."""

FAILED = b"failed: "
"""From a worker that cannot serve for the operator's fault: the reason follows."""

DRAINING = b"draining: "
"""From a worker that was told to drain or to finish: it accepts nothing more, and has so many connections."""

ENDING = b"ending: "
"""From a worker that was told to stop, or that a signal ends: it ends the connections left, this many."""

ALIVE = b"alive"
"""From a worker that was asked whether it lives."""

DRAIN = b"drain"
"""To a worker whose successors serve: accept nothing more, and end when the last connection has."""

FINISH = b"finish"
"""To a worker, as the whole daemon ends: as DRAIN, and leave all signals to the supervisor."""

STOP = b"stop"
"""To a worker: end now."""

ASK = b"ask"
"""To a worker: say that you live."""

LIST = b"list"
"""To a worker: write the connections to the log."""

LOG = b"log"
"""To a worker, with descriptors: go on logging to these (`Log.adopt`)."""

LEVEL = b"level: "
"""To a worker: log up to another level (`level_message`)."""

MESSAGE_LIMIT = 1024
"""Bytes that hold any message; a longer reason is cut."""

DESCRIPTOR_LIMIT = 8
"""More than a log has sinks."""

NAME_LIMIT = 512
"""Bytes of a service's name in a message: longer ones are told apart by as many."""


def counted(word: bytes, connections: int) -> bytes:
    """A message that carries a number of connections."""
    return word + b"%d" % connections


def level_message(level: int, service: str | None) -> bytes:
    """LEVEL with its number, and the name of the service; None for the daemon and all of its services."""
    name = b"" if service is None else b" " + service.encode()[:NAME_LIMIT]
    return LEVEL + b"%d" % level + name


def read_level(message: bytes, services: Iterable[str]) -> tuple[int, list[str | None]]:
    """What `level_message` says to one who has these services: the level, and whose it is to be."""
    number, _, name = message.removeprefix(LEVEL).partition(b" ")
    if not name:
        return int(number), [None]
    return int(number), [service for service in services if service.encode()[:NAME_LIMIT] == name]
