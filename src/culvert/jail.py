"""Where a path that is meant inside the jail lies, for whoever is still outside of it."""

from __future__ import annotations

import os
from pathlib import Path


def inside(chroot: str | None, path: str) -> Path:
    """Where a path that is meant inside the jail lies for a process outside of it; always absolute.

    A relative path starts at the jail's root, and `..` does not lead out of it.
    """
    if chroot is None:
        return Path(path).absolute()
    return Path(chroot).absolute() / os.path.normpath(f"/{path}").lstrip("/")
