"""An open file description of one's own, for a stream that a shell or a launcher shares with others.

Flags such as O_NONBLOCK belong to the description: what is set there is set for everybody who has it.
"""

from __future__ import annotations

import fcntl
import os
import stat

_TIOCGPTN = 0x80045430


def open_anew(number: int, flags: int) -> int | None:
    """The stream of a descriptor, opened again without blocking; `flags` is O_RDONLY or O_WRONLY.

    None where that cannot be had, or would be something else: the path of a pseudoterminal's master, and of
    many a device, makes a new one each time it is opened.
    """
    mode = os.fstat(number).st_mode
    if not (stat.S_ISFIFO(mode) or (os.isatty(number) and not _is_master(number))):
        return None
    try:
        return os.open(f"/proc/self/fd/{number}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _is_master(number: int) -> bool:
    try:
        fcntl.ioctl(number, _TIOCGPTN, b"\0" * 4)
    except OSError:
        return False
    return True
