"""Linux capabilities (capabilities(7)): what a process keeps of root's powers as it becomes somebody else.

The standard library has no call for them; libc's own are used.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

CAP_DAC_READ_SEARCH = 2
CAP_SETPCAP = 8
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13

_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_VERSION_3 = 0x20080522
_CALLING_PROCESS = 0
_HIGHEST = 63


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_TwoSets = _Sets * 2
"""The lower 32 capabilities, then the upper 32."""


def keep_over_setuid(*, wanted: bool) -> None:
    """Whether setresuid(2) from root to another user leaves the permitted set as it is. Raises OSError."""
    _call("prctl", _PR_SET_KEEPCAPS, int(wanted), 0, 0, 0)


def empty_bounding_set() -> None:
    """Let no program that is run from now on gain a capability by its file. It takes CAP_SETPCAP.

    Raises OSError.
    """
    for number in range(_HIGHEST + 1):
        try:
            present = _call("prctl", _PR_CAPBSET_READ, number, 0, 0, 0)
        except OSError:  # the kernel knows none of this number, nor any above it
            return
        if present:
            _call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)


def gain_no_more() -> None:
    """Let no program that is run from now on have more than this process, by setuid or as root does.

    Raises OSError.
    """
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def keep_only(capabilities: Iterable[int]) -> None:
    """Have these in force and permitted, no others, and none to hand on to programs. Raises OSError.

    The ambient set loses what the inheritable one loses (capabilities(7)).
    """
    sets = _TwoSets()
    for number in capabilities:
        sets[number // 32].effective |= 1 << number % 32
        sets[number // 32].permitted |= 1 << number % 32
    header = _Header(_VERSION_3, _CALLING_PROCESS)
    _call("capset", ctypes.byref(header), sets)


def relinquish(number: int) -> None:
    """Give up this one, and keep what else there is. Raises OSError."""
    had = permitted()
    if had >> number & 1:
        keep_only(one for one in range(_HIGHEST + 1) if one != number and had >> one & 1)


def permitted() -> int:
    """The permitted set as a mask, bit by number. Raises OSError."""
    sets = _TwoSets()
    header = _Header(_VERSION_3, _CALLING_PROCESS)
    _call("capget", ctypes.byref(header), sets)
    return int(sets[0].permitted) | int(sets[1].permitted) << 32


def _call(name: str, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = getattr(libc, name)(*arguments)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found
