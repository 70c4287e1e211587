"""Which files are watched, what they hold, and every name on the way to them that can make it change."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from culvert.config.model import Service
from culvert.jail import inside

FILE_LIMIT = 16 << 20
"""How much of a file is compared in bytes: what a certificate file may have at most (`tls.credentials`)."""

_LINKS = 40
"""Symbolic links that are followed for one path: as many as the kernel follows (path_resolution(7))."""

_FORBIDDEN = (b"EACCES", b"EPERM")


class _Field(NamedTuple):
    """A field of `Service` that names a file or folder; `jailed`: it is meant inside the jail."""

    name: str
    jailed: bool = False


FIELDS = (
    _Field("cert"),
    _Field("key"),
    _Field("ca_file"),
    _Field("ca_path", jailed=True),
    _Field("crl_file"),
    _Field("psk_secrets"),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """The files and folders of a configuration, and what they held when it was made."""

    contents: Mapping[str, bytes]

    @classmethod
    def of(cls, services: Iterable[Service], chroot: str | None) -> Watched:
        """What these services name, as it is now. To be called before the files are read for use.

        A change between the two then counts as one that came later, which costs a reload; the other way
        round it would go unnoticed. Relative paths are those of the working directory.
        """
        paths = {
            str(inside(chroot if field.jailed else None, path))
            for service in services
            for field in FIELDS
            if (path := getattr(service, field.name)) is not None
        }
        return cls({path: _content(path) for path in sorted(paths)})

    def now(self) -> Watched:
        """The same files with what they hold now."""
        return Watched({path: _content(path) for path in self.contents})

    def changed(self, other: Watched) -> list[str]:
        """The files whose contents differ in `other`."""
        return [path for path, content in self.contents.items() if other.contents.get(path) != content]

    def places(self) -> Places:
        """Where a change can change these files.

        That is each component of each path, and of the target of each symbolic link on the way: files are
        renewed by writing to them, by renaming others over them, and by changing a link to a folder above.
        """
        names = frozenset(name for path in self.contents for name in _names(path))
        return Places(names, frozenset(_folders(names)))

    def unreadable(self) -> list[str]:
        """Those that this process may not read."""
        return [path for path, content in self.now().contents.items() if content in _FORBIDDEN]

    def unlisted(self) -> list[str]:
        """The folders of these files that this process may not list, so that changes there are not told."""
        folders = {folder for path in self.contents for folder in _own_folders(path)}
        return sorted(
            folder
            for folder in folders
            if os.access(folder, os.F_OK) and not os.access(folder, os.R_OK, effective_ids=True)
        )


@dataclass(frozen=True, slots=True)
class Places:
    """Where files can change: `names` are whole paths, of which one that ends in "/" stands for all below it.

    `folders` are those that hold the names, each with its device and inode: one that was replaced is another.
    """

    names: frozenset[str]
    folders: frozenset[tuple[str, int, int]]


def folder_of(name: str) -> str:
    """The folder of a name as `Places` has it."""
    return name.rpartition("/")[0] or "/"


def _content(path: str) -> bytes:
    """What tells the contents of a file or folder from others; or why they cannot be read."""
    try:
        # A named pipe is not waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                return _entries(fd)
            return _digest(fd) if stat.S_ISREG(mode) else b"special"
        finally:
            os.close(fd)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "unreadable").encode()


def _digest(fd: int) -> bytes:
    with os.fdopen(fd, "rb", closefd=False) as file:
        return hashlib.sha256(file.read(FILE_LIMIT)).digest()


def _entries(fd: int) -> bytes:
    """The names in a folder with what a change of their files changes: there may be hundreds to read."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(fd)):
        try:
            found = os.stat(name, dir_fd=fd)
        except OSError:  # a link that leads nowhere
            continue
        digest.update(repr((name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)).encode())
    return digest.digest()


def _names(path: str) -> Iterator[str]:
    folder, links = "/", 0
    waiting = list(reversed(PurePath(path).parts[1:]))
    while waiting:
        name = waiting.pop()
        if name == "..":
            folder = folder_of(folder)
            continue
        here = f"{folder.rstrip('/')}/{name}"
        yield here
        try:
            target = Path(here).readlink()
        except OSError:  # no link, or nothing there
            folder = here
            continue
        links += 1
        if links > _LINKS:
            return
        if target.is_absolute():
            folder = "/"
        waiting.extend(reversed(target.parts[target.is_absolute() :]))
    if _is_folder(folder):
        yield f"{folder}/"


def _folders(names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    for folder in {folder_of(name) for name in names}:
        identity = _identity(folder)
        if identity is not None:
            yield folder, *identity


def _own_folders(path: str) -> Iterator[str]:
    """The folder of a file, and the one that it lies in by its links; a folder is its own."""
    for one in (path, os.path.realpath(path)):
        yield one if _is_folder(one) else folder_of(one)


def _is_folder(path: str) -> bool:
    return _identity(path) is not None


def _identity(folder: str) -> tuple[int, int] | None:
    """The device and inode of a folder; None for what is none, or cannot be reached."""
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
