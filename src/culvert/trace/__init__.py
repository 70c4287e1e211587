"""Traces of TLS connections: what an engine says of itself, and what a reader makes of it; no I/O."""

from culvert.trace.events import (
    Closed,
    Direction,
    FormatError,
    Joined,
    Lost,
    Opened,
    Record,
    Secret,
    TraceEvent,
    Wire,
    from_line,
    to_line,
)
from culvert.trace.tap import Tap, Wants
from culvert.trace.tracing import Subscription, Tracing

__all__ = [
    "Closed",
    "Direction",
    "FormatError",
    "Joined",
    "Lost",
    "Opened",
    "Record",
    "Secret",
    "Subscription",
    "Tap",
    "TraceEvent",
    "Tracing",
    "Wants",
    "Wire",
    "from_line",
    "to_line",
]
