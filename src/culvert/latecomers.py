"""Who connects to a listening socket that is about to be closed.

The kernel resets connections that wait in the queue of a socket whose last descriptor is closed. However
quickly that follows on the last accept, somebody may come in between, who was told that he is connected. A
filter on the socket ends that: it drops what opens a connection, so the queue can be emptied for good. Who is
turned away tries again after a second, by himself, and finds the address closed, or the socket that has taken
its place.

Who had begun to connect before the filter is in no queue yet, and passes it: his connection is complete with
a segment that opens nothing. `Arrivals` tells whether there is such a one, so that the socket can be kept for
him; where there is none, which is the rule, nothing is waited for.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

PATIENCE = 1.5
"""Seconds to wait for those who are connecting: a segment that was lost is sent again after one (RFC 6298,
2). A stranger who never completes what he began costs a stop no more than this."""

LOOK = 0.02
"""Seconds between two looks at whether somebody is."""

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_HALF_MADE = re.compile(rb":(?P<port>[0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} 03 ")
"""A line's local port, its other end, and the state SYN-RECEIVED (proc(5), net/tcp_states.h)."""

_SO_ATTACH_FILTER = 26
"""asm-generic/socket.h. Where it has another number, the filter is not set: a moment remains, as before."""

_INSTRUCTION = struct.Struct("@HBBI")
_FLAGS, _SYN = 13, 0x02
_PROGRAM = b"".join(
    _INSTRUCTION.pack(*one)
    for one in (
        (0x30, 0, 0, _FLAGS),  # load a byte of the TCP header
        (0x45, 0, 1, _SYN),  # if it has this bit, go on with the next one, else skip it
        (0x06, 0, 0, 0),  # drop the segment
        (0x06, 0, 0, 0xFFFFFFFF),  # take the whole of it
    )
)


def turn_away(listening: socket.socket) -> None:
    """Let nobody connect any more, in any process that shares the socket; who waits can be accepted.

    A Unix socket is closed to newcomers by taking its file away.
    """
    if listening.fileno() < 0 or listening.family == socket.AF_UNIX:
        return
    program = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    fprog = struct.pack("@HP", len(_PROGRAM) // _INSTRUCTION.size, ctypes.addressof(program))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


class Arrivals:
    """Clients who had begun to connect to these ports when `turn_away` was called."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = frozenset(ports)
        self._until = time.monotonic() + PATIENCE

    def expected(self) -> bool:
        """Whether one may still come. Ask again after `LOOK` seconds, while others accept.

        Where the kernel's tables cannot be read, as in a jail, nobody is expected; nor is who was answered
        with a SYN cookie, whom no table has.
        """
        return (
            bool(self._ports) and time.monotonic() < self._until and not self._ports.isdisjoint(_half_made())
        )


def _half_made() -> set[int]:
    """The ports of this machine to which a handshake of TCP is under way."""
    found: set[int] = set()
    for table in _TABLES:
        with contextlib.suppress(OSError):  # also where there is no IPv6
            found.update(int(match["port"], 16) for match in _HALF_MADE.finditer(table.read_bytes()))
    return found
