"""A chroot jail that holds one program and the shared libraries that it needs, and nothing else."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from culvert.errors import CulvertError

_TIME_LIMIT = 20.0
_ELF_MAGIC = b"\x7fELF"
_ELF_64_BIT = 2
_ELF_BIG_ENDIAN = 2
_PT_INTERP = 3
_LISTED_LIBRARY = re.compile(r"(/\S+) \(0x[0-9a-f]+\)$")

# Runs in a process of its own: what a worker does before it executes the service's program.
_TRIAL = """
import os, sys
jail, uid, gid, *command = sys.argv[1:]
os.chroot(jail)
os.chdir("/")
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
"""


class JailError(CulvertError):
    """This machine, or this user, cannot have the jail; the text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the jailed processes run as."""

    user: pwd.struct_passwd
    group: grp.struct_group


def unprivileged_identity() -> Identity:
    """The user `nobody` and its group. Raises JailError where the system has none."""
    try:
        user = pwd.getpwnam("nobody")
        return Identity(user, grp.getgrgid(user.pw_gid))
    except KeyError as error:
        raise JailError(f"this system has no unprivileged user: {error.args[0]}") from None


def build_jail(jail: Path, program: Path, identity: Identity) -> str:
    """Put `program` into the new directory `jail`, prove that it runs there, and return its path inside.

    The jail also gets a folder `/run` that belongs to `identity`, for a pid file.
    Raises JailError where it does not: without the right to chroot and setuid, on a file system
    without execution, or for a program that needs more than its libraries.
    """
    if os.geteuid() != 0:
        raise JailError("chroot and setuid need root")
    inside = f"/bin/{program.name}"
    try:
        _fill(jail, program, inside, identity)
        _try(jail, inside, identity)
    except (OSError, subprocess.SubprocessError) as error:
        raise JailError(f"the jail could not be made: {error}") from error
    return inside


def _fill(jail: Path, program: Path, inside: str, identity: Identity) -> None:
    _copy(program, jail, inside)
    for library in _libraries(program.resolve()):
        _copy(Path(library), jail, library)
    run = jail / "run"
    run.mkdir()
    os.chown(run, identity.user.pw_uid, identity.group.gr_gid)


def _copy(source: Path, jail: Path, inside: str) -> None:
    target = jail / inside.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def _libraries(program: Path) -> list[str]:
    """The loader and the libraries of `program`, as its own loader lists them; none for a static one."""
    loader = elf_interpreter(program.read_bytes())
    if loader is None:
        return []
    listing = subprocess.run(
        [loader, "--list", str(program)], capture_output=True, text=True, timeout=_TIME_LIMIT, check=False
    )
    if listing.returncode != 0:
        raise JailError(f"{loader} cannot list the libraries of {program}: {listing.stderr.strip()}")
    matches = (_LISTED_LIBRARY.search(line) for line in listing.stdout.splitlines())
    return [loader, *(match[1] for match in matches if match)]


def elf_interpreter(image: bytes) -> str | None:
    """The loader that an ELF program asks for (the PT_INTERP segment); None where it is statically linked.

    Raises JailError for what is no ELF image, a script for instance.
    """
    if image[:4] != _ELF_MAGIC:
        raise JailError("the program for the jail is no ELF image")
    order = ">" if image[5] == _ELF_BIG_ENDIAN else "<"
    wide = image[4] == _ELF_64_BIT
    try:
        table, entry_size, entries = (
            struct.unpack_from(f"{order}32xQ14xHH", image)
            if wide
            else struct.unpack_from(f"{order}28xI10xHH", image)
        )
        layout = f"{order}I4xQ16xQ" if wide else f"{order}II8xI"
        for index in range(entries):
            kind, offset, size = struct.unpack_from(layout, image, table + index * entry_size)
            if kind == _PT_INTERP:
                return image[offset : offset + size].rstrip(b"\0").decode()
    except struct.error:
        raise JailError("the program for the jail is a damaged ELF image") from None
    return None


def _try(jail: Path, inside: str, identity: Identity) -> None:
    command = [sys.executable, "-I", "-c", _TRIAL, str(jail), str(identity.user.pw_uid)]
    command += [str(identity.group.gr_gid), inside]
    trial = subprocess.run(
        command, input="echo", capture_output=True, text=True, timeout=_TIME_LIMIT, check=False
    )
    if trial.returncode != 0 or trial.stdout != "echo":
        reason = trial.stderr.strip().splitlines()[-1:] or [f"{inside} did not answer"]
        raise JailError(f"a trial in the jail failed: {reason[0]}")
