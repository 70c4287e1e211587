"""Who connects to a listening socket that is about to be closed.

The kernel resets connections that wait in the queue of a socket whose last descriptor is closed. However
quickly that follows on the last accept, somebody may come in between, who was told that he is connected. A
filter on the socket ends that: it drops what opens a connection, so the queue can be emptied for good. Who is
turned away tries again after a second, by himself, and finds the address closed, or the socket that has taken
its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

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
