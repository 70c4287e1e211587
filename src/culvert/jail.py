"""Paths that are meant inside the jail, for a process that may still be outside of it.

Folders of a jail may belong to whoever is confined there, who can put a symbolic link where a file of the
daemon is expected. Root, outside, would follow it to any file of the host. So a `Place` inside a jail is
reached folder by folder, each opened in the one before, and a link on the way is refused.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def inside(chroot: str | None, path: str) -> Path:
    """Where a path that is meant inside the jail lies for a process outside of it; always absolute.

    A relative path starts at the jail's root, and `..` does not lead out of it. To be shown, and to be read
    as the caller; what root is to write, rename or remove is a `Place`.
    """
    if chroot is None:
        return Path(path).absolute()
    return Path(chroot).absolute() / os.path.normpath(f"/{path}").lstrip("/")


class Place:
    """Where a file of the daemon is or is to be made: `path`, meant inside `chroot` where that is set."""

    def __init__(self, chroot: str | None, path: str) -> None:
        self._root = None if chroot is None else Path(chroot).absolute()
        self._path = inside(chroot, path)

    def __str__(self) -> str:
        """The whole path, as it is outside the jail."""
        return str(self._path)

    def in_jail(self) -> Place:
        """The same place for a process that has entered the jail, where links lead nowhere else."""
        return self if self._root is None else Place(None, f"/{self._path.relative_to(self._root)}")

    @contextlib.contextmanager
    def folder(self) -> Iterator[tuple[int, str]]:
        """The folder of the file as a descriptor, to be used as `dir_fd`, and the file's name in it.

        Raises OSError, in a jail also where a component of the folder is a symbolic link. What is then done
        by name in the folder must not follow a link either.
        """
        if self._root is None:
            names, folder = self._path.parts, os.open(self._path.parent, _FOLDER)
        else:
            names = self._path.relative_to(self._root).parts
            folder = _descend(self._root, names[:-1])
        try:
            yield folder, names[-1] if names else "."
        finally:
            os.close(folder)

    def open(self, flags: int, mode: int = 0o666) -> int:
        """As os.open, but inside a jail a symbolic link is refused wherever it stands. Raises OSError."""
        with self.folder() as (folder, name):
            if self._root is None:
                return os.open(name, flags, mode, dir_fd=folder)
            return _open_unlinked(folder, name, flags, mode)


def _descend(root: Path, names: tuple[str, ...]) -> int:
    folder = os.open(root, _FOLDER)
    for name in names:
        try:
            below = _open_unlinked(folder, name, _FOLDER)
        finally:
            os.close(folder)
        folder = below
    return folder


def _open_unlinked(folder: int, name: str, flags: int, mode: int = 0o666) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=folder)
    except OSError:
        # Which error a link gives depends on the flags (open(2)), and neither speaks of a link.
        if _is_link(folder, name):
            raise OSError(
                f"'{name}' is a symbolic link, and none is followed inside 'chroot': "
                "put the file or folder itself there"
            ) from None
        raise


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
