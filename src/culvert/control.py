"""The words of the control channel between the supervisor and a worker: one message a datagram."""

from __future__ import annotations

import enum
import json
import re
from dataclasses import asdict, astuple, dataclass

from culvert.trace import Wants

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

MESSAGE_LIMIT = 8192
"""Bytes that hold any message; a longer reason is cut, a longer request is not sent."""

DESCRIPTOR_LIMIT = 8
"""More than a log has sinks."""

REQUEST = b"request: "
"""From the process of the admin endpoint, and passed on to workers by the supervisor: a `Request`. One
descriptor comes with it, a socket of type SOCK_SEQPACKET to write answers to. A TRACE is passed on to workers
of later, too."""

JOIN = b"join"
"""From a worker, by the socket of a TRACE: the stream that comes along will bring what it sees."""

LISTED = 1000
"""Most connections that are listed at a time."""

IDENT = r"[A-Za-z0-9_-]{0,64}"
"""The form of what the log calls a connection; nothing stands for any."""


def counted(word: bytes, connections: int) -> bytes:
    """A message that carries a number of connections."""
    return word + b"%d" % connections


class Action(enum.Enum):
    """What the admin endpoint may ask for."""

    LIST = "list"
    END = "end"
    LEVEL = "level"
    RELOAD = "reload"
    STOP = "stop"
    TRACE = "trace"


_NOTHING = Wants()


@dataclass(frozen=True, slots=True)
class Request:
    """Something that the admin endpoint asks for: `ident` of END, and of TRACE where it is not empty; `level`
    of LEVEL, `limit` of LIST, `wants` of TRACE, and `service` of LIST, LEVEL and TRACE; None is all of them,
    and for LEVEL the daemon, too."""

    action: Action
    ident: str = ""
    level: int = 0
    limit: int = 0
    service: str | None = None
    wants: Wants = _NOTHING

    def encode(self) -> bytes:
        """The message."""
        return REQUEST + json.dumps(asdict(self) | {"action": self.action.value}, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, message: bytes) -> Request:
        """What a message asks for, which may be anything. Raises ValueError."""
        try:
            found = cls(**json.loads(message.removeprefix(REQUEST)))
            wants = found.wants if isinstance(found.wants, Wants) else Wants(**found.wants)
            request = cls(Action(found.action), found.ident, found.level, found.limit, found.service, wants)
            sound = (
                re.fullmatch(IDENT, request.ident) is not None
                and type(request.level) is type(request.limit) is int
                and 0 <= request.level <= 7
                and 0 <= request.limit <= LISTED
                and isinstance(request.service, str | None)
                and all(type(one) is bool for one in astuple(wants))
            )
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        if not sound:
            raise ValueError("a field of the request is out of its range")
        return request
