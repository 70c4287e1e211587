"""One side of a connection, and how a connection comes to its end."""

from __future__ import annotations

import enum
from typing import Protocol


class Stream(Protocol):
    """One side of a connection: a non-blocking socket, or something that behaves like one."""

    def fileno(self) -> int: ...
    def recv_into(self, buffer: bytearray, /) -> int: ...
    def send(self, data: memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class End(enum.Enum):
    """How a connection came to its end."""

    CLOSED = "closed"
    UNANSWERED = "the other side did not close in time"
    IDLE = "idle"
    RESET = "reset"
    REFUSED = "refused"
    TLS_FAILED = "TLS failed"
    NEGOTIATION_FAILED = "negotiation failed"
    LEFT = "left before TLS"
    SILENT = "sent nothing"
