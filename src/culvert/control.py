"""The words of the control channel between the supervisor and a worker: one message a datagram."""

from __future__ import annotations

READY = b"ready"
"""From a worker: it serves."""

FAILED = b"failed: "
"""From a worker that cannot serve for the operator's fault: the reason follows."""

DRAINING = b"draining"
"""From a worker that was told to drain: it accepts nothing more."""

DRAIN = b"drain"
"""To a worker: accept nothing more, and end when the last connection has."""

STOP = b"stop"
"""To a worker: end now."""

LIST = b"list"
"""To a worker: write the connections to the log."""

LOG = b"log"
"""To a worker, with descriptors: go on logging to these (`Log.adopt`)."""

MESSAGE_LIMIT = 1024
"""Bytes that hold any message; a longer reason is cut."""

DESCRIPTOR_LIMIT = 8
"""More than a log has sinks."""
