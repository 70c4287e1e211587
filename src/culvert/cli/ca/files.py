"""Writes the files of a CA: what is secret is never open to others, what is replaced is replaced at once."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from culvert.errors import ConfigurationError, os_reason

SECRET = 0o600
PUBLIC = 0o644
"""Modes of a new file; the caller's umask can take from them only."""


def create(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet; a part of it is never left. Raises ConfigurationError."""
    try:
        _write(path, data, mode)
    except FileExistsError:
        raise ConfigurationError.single(f"{path} exists already, and is left as it is") from None
    except OSError as error:
        raise _fault(path, error) from None


def replace(path: Path, data: bytes, mode: int) -> None:
    """Write a file in the place of one that may exist: others see the old or the new, and no third.

    Raises ConfigurationError, and then the old one is still there.
    """
    draft = path.with_name(f".{secrets.token_hex(8)}.new")
    try:
        _write(draft, data, mode)
        try:
            draft.replace(path)
        except BaseException:
            draft.unlink()
            raise
    except OSError as error:
        raise _fault(path, error) from None


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _fault(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError.single(f"Cannot write {path}: {os_reason(error)}")
