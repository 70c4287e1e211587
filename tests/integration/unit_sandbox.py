"""Runs a command behind the walls of a unit file, without systemd: its capabilities and its system calls.

    python unit_sandbox.py UNIT COMMAND...

It applies CapabilityBoundingSet, NoNewPrivileges, MemoryDenyWriteExecute, RestrictAddressFamilies and
SystemCallFilter of the unit, which are what would break a daemon at work; where its files are is no matter
here. The groups of system calls are those that the installed systemd-analyze lists. It needs root, and
libseccomp, on which systemd depends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
"""From Linux 6.3 on; before, memory that can be written and executed is not tried."""

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM
EQUAL = 4

CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
}
"""Their numbers (include/uapi/linux/capability.h)."""

_LIBC = ctypes.CDLL(None, use_errno=True)


class _Compare(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def directives(unit: str) -> dict[str, list[str]]:
    """The values of the unit's settings, each of which may stand several times."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", unit):
        found.setdefault(name, []).append(value)
    return found


def system_calls(names: list[str]) -> set[str]:
    """The calls that these names and groups stand for."""
    found: set[str] = set()
    for name in names:
        if name.startswith("@"):
            listing = subprocess.run(
                ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
            ).stdout.split("\n")
            found |= system_calls(
                [line.strip() for line in listing[1:] if line.strip() and not line.strip().startswith("#")]
            )
        else:
            found.add(name)
    return found


def allowed(filters: list[str]) -> set[str]:
    """What is left of the lists of a unit, in which `~` takes calls away."""
    calls: set[str] = set()
    for text in filters:
        if text.startswith("~"):
            calls -= system_calls(text[1:].split())
        else:
            calls |= system_calls(text.split())
    return calls


def restrict_calls(calls: set[str], families: list[int]) -> None:
    """Have all other system calls, and sockets of other families, be refused with EPERM."""
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.restype = ctypes.c_void_p
    filters = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(REFUSE)))
    for name in sorted(calls):
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # of another architecture
            continue
        for condition in _conditions(name, families):
            failed = lib.seccomp_rule_add_array(
                filters,
                ctypes.c_uint32(ALLOW),
                number,
                len(condition),
                (_Compare * len(condition))(*condition),
            )
            if failed:
                raise OSError(-failed, f"seccomp: {name}")
    failed = lib.seccomp_load(filters)
    if failed:
        raise OSError(-failed, "seccomp_load")


def _conditions(name: str, families: list[int]) -> Iterator[list[_Compare]]:
    if name == "socket":
        yield from ([_Compare(0, EQUAL, family, 0)] for family in families)
    else:
        yield []


def main() -> None:
    """Raise the walls, and become the command."""
    unit = directives(Path(sys.argv[1]).read_text())
    calls = allowed(unit["SystemCallFilter"])
    kept = {CAPABILITIES[name] for name in unit["CapabilityBoundingSet"][0].split()}
    families = [getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()]
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in set(range(last + 1)) - kept:
        if _LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"capability {number}")
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        _LIBC.prctl(PR_SET_MDWE, 1, 0, 0, 0)
    if unit["NoNewPrivileges"] == ["yes"]:
        _LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    restrict_calls(calls, families)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
