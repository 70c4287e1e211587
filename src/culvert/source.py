"""Where generations take their configuration from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Protocol

from culvert import config
from culvert.address import Address, UnixPath
from culvert.config.model import Configuration, Service
from culvert.errors import ConfigurationError, os_reason


class Source(Protocol):
    """What a generation is made from: `load` gives its configuration, as it stands now, or raises
    ConfigurationError; the log calls it by `kind` and `name`."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    def load(self) -> Configuration: ...


class ConfigurationSource:
    """Where the configuration comes from: a file, read anew for each reload, or a descriptor, read once."""

    def __init__(self, source: str | int, drain_timeout: float | None = None) -> None:
        """`source` is a path or a descriptor's number. Nothing is read before `load`.

        `drain_timeout` counts where the file does not set it, in place of the option's default.
        """
        self._drain_timeout = drain_timeout
        self._descriptor = source if isinstance(source, int) else None
        # As the first process was told it, and absolute, for a daemon changes to "/".
        self.kind = "descriptor" if isinstance(source, int) else "file"
        self.name = str(source)
        self._path = None if isinstance(source, int) else str(Path(source).absolute())
        self._text: bytes | None = None
        self._peeked: Configuration | None = None

    def peek(self) -> Configuration:
        """The configuration that the coming `load` will return. Raises ConfigurationError."""
        self._peeked = self.load()
        return self._peeked

    def load(self) -> Configuration:
        """The configuration as it stands now. Raises ConfigurationError."""
        if self._peeked is not None:
            peeked, self._peeked = self._peeked, None
            return peeked
        if self._path is not None:
            return self._completed(config.load(self._path))
        if self._text is None:
            self._text = self._read()
        return self._completed(config.loads(self._text, f"{self.kind} {self.name}"))

    def _completed(self, found: Configuration) -> Configuration:
        if self._drain_timeout is None or "drainTimeout" in found.options.locations:
            return found
        options = dataclasses.replace(found.options, drain_timeout=self._drain_timeout)
        return dataclasses.replace(found, options=options)

    def _read(self) -> bytes:
        try:
            with os.fdopen(self._descriptor or 0, "rb") as file:  # closed, for workers must not read it
                return file.read(config.MAX_BYTES + 1)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot read {self.kind} {self.name}: {os_reason(error)}"
            ) from None


def anchored(service: Service) -> Service:
    """A service whose paths mean the same when the daemon has changed its directory.

    Those that are used while it serves: what is read at start is read in the directory of the start.
    """
    return dataclasses.replace(
        service,
        ca_path=None if service.ca_path is None else str(Path(service.ca_path).absolute()),
        crl_path=None if service.crl_path is None else str(Path(service.crl_path).absolute()),
        # A program without a slash is looked for in PATH.
        exec=str(Path(service.exec).absolute()) if service.exec and "/" in service.exec else service.exec,
        connect=tuple(_anchored_target(target) for target in service.connect),
        redirect=None if service.redirect is None else _anchored_target(service.redirect),
    )


def _anchored_target(target: Address) -> Address:
    return UnixPath(str(Path(target.path).absolute())) if isinstance(target, UnixPath) else target
