"""The token of the admin endpoint, as both ends read it."""

from __future__ import annotations

from pathlib import Path

from culvert.errors import ConfigurationError, Location, os_reason

_LIMIT = 4096
"""Bytes of a token: it has a few dozen."""


def read_token(path: str, where: Location | None = None) -> bytes:
    """The token in a file. Raises ConfigurationError, for the line that names the file."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot read the token in {path}: {os_reason(error)}", where
        ) from None
    return checked_token(content, path, where)


def checked_token(content: bytes, source: str, where: Location | None = None) -> bytes:
    """The token that `source` holds. Raises ConfigurationError."""
    token = content.strip()
    if not token or len(token) > _LIMIT or not all(b"!"[0] <= one <= b"~"[0] for one in token):
        raise ConfigurationError.single(
            f"{source} holds no token: one line of visible ASCII characters is expected", where
        )
    return token
