"""What a load has found so far: errors, warnings and notes, given back in the order of the file's lines."""

from __future__ import annotations

from dataclasses import replace

from culvert.errors import Diagnostic, Location, Severity

MAX_ERRORS = 100
"""After so many errors the rest is not worth reading: most likely the file is no configuration at all."""


class Findings:
    """Collects diagnostics; each line must have been announced by `place` before it is complained about."""

    def __init__(self) -> None:
        self._found: dict[tuple[Severity, str, Location | None], Diagnostic] = {}
        self._errors = 0
        self._order: dict[tuple[str, int], int] = {}

    def place(self, location: Location) -> None:
        """Note that this line comes next; one that is read again keeps its first place."""
        self._order.setdefault((location.path, location.line), len(self._order))

    def error(
        self, message: str, where: Location | None, service: str | None = None, hint: str | None = None
    ) -> None:
        self._errors += 1
        self._add(Diagnostic(Severity.ERROR, message, where, service, hint))

    def warning(self, message: str, where: Location, service: str | None = None) -> None:
        self._add(Diagnostic(Severity.WARNING, message, where, service))

    def note(self, message: str, where: Location, service: str | None = None) -> None:
        self._add(Diagnostic(Severity.NOTE, message, where, service))

    def _add(self, finding: Diagnostic) -> None:
        """Keep it once: one that several services share, by a line above them all, names none of them."""
        known = self._found.setdefault((finding.severity, finding.message, finding.location), finding)
        if known.service != finding.service:
            self._found[finding.severity, finding.message, finding.location] = replace(known, service=None)

    @property
    def failed(self) -> bool:
        return self._errors > 0

    @property
    def hopeless(self) -> bool:
        """Whether reading on would only bury the operator."""
        return self._errors >= MAX_ERRORS

    def in_order(self) -> tuple[Diagnostic, ...]:
        """Everything found, by line; findings on one line stay in the order in which they were made."""
        return tuple(sorted(self._found.values(), key=self._rank))

    def _rank(self, diagnostic: Diagnostic) -> int:
        where = diagnostic.location
        return len(self._order) if where is None else self._order.get((where.path, where.line), -1)
