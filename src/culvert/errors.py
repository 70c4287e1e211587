"""The faults that Culvert tells apart: the operator's, the peer's, the backend's, and its own.

An error holds fields; its text is made where it is shown. Whatever is not one of these classes and
reaches a border (a connection's task, a worker's main, the supervisor's main) is a fault of Culvert's own.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


class CulvertError(Exception):
    """What every error that Culvert raises on purpose has in common."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where in a configuration something stands: `line` counts from 1, `text` is the line as written."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class Severity(enum.Enum):
    """How much a diagnostic matters: an error refuses the configuration, the others do not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding on a configuration.

    `message` is one sentence that says what is wrong and what was expected; `hint` says what to do
    (for a misspelt name: what was probably meant); `service` is the section's name where there is one.
    """

    severity: Severity
    message: str
    location: Location | None = None
    service: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        """The finding on one line, in the form that stunnel's users grep for: FILE:LINE: "line": reason."""
        reason = f"{self.message} ({self.hint})" if self.hint else self.message
        if self.location is not None:
            return f'{self.location}: "{self.location.text}": {reason}'
        if self.service is not None:
            return f"Service [{self.service}]: {reason}"
        return reason


class ConfigurationError(CulvertError):
    """The operator's fault: a configuration that cannot be used. `diagnostics` has one error at least."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)

    @classmethod
    def single(
        cls,
        message: str,
        location: Location | None = None,
        service: str | None = None,
        hint: str | None = None,
    ) -> Self:
        """An error of one finding."""
        return cls([Diagnostic(Severity.ERROR, message, location, service, hint)])

    def __str__(self) -> str:
        return "\n".join(str(d) for d in self.diagnostics)


class UnusableFileError(ConfigurationError):
    """A certificate or key file, named by a configuration that is good otherwise, cannot be used as it is.

    It may be in the middle of its renewal.
    """


class PeerError(CulvertError):
    """The remote client's or TLS peer's fault: it ends that connection and nothing else."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def os_reason(error: OSError) -> str:
    """The system's words for an error: asyncio and uvloop put their own into `strerror`."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


class BackendError(CulvertError):
    """The plain side's fault: a target that cannot be reached, a program that cannot be started."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    @property
    def why(self) -> str:
        """What happened, for those who see no line of the log before this."""
        return self.reason

    def __str__(self) -> str:
        return self.reason


class Unreached(enum.Enum):
    """Why a target was not reached; the value completes "the target ..."."""

    UNRESOLVED = "has no address"
    REFUSED = "refused the connection"
    HOST_UNREACHABLE = "cannot be reached"
    NETWORK_UNREACHABLE = "is in a network that cannot be reached"
    TIMED_OUT = "did not answer in time"
    FORBIDDEN = "is not permitted"
    FAILED = "could not be connected to"


class ConnectError(BackendError):
    """No target was reached. `cause` is for those who have to answer a client by a code."""

    def __init__(self, reason: str, cause: Unreached) -> None:
        super().__init__(reason)
        self.cause = cause

    @property
    def why(self) -> str:
        return self.reason if self.cause is Unreached.FORBIDDEN else f"the target {self.cause.value}"
