"""`culvert check`: everything that can be known of a configuration without running it."""

from __future__ import annotations

import datetime
import json
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from culvert import config, libwrap
from culvert.cli.faults import printable
from culvert.cli.surroundings import examine
from culvert.config.model import Configuration, Service
from culvert.descriptors import Demand
from culvert.errors import ConfigurationError, Diagnostic, Location, Severity
from culvert.jail import inside
from culvert.tls.context import TlsContext
from culvert.tls.credentials import PassPhrases
from culvert.tls.inspection import inspect, lifetimes
from culvert.tls.lifetime import Lifetime

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """A certificate that services show: their names, the file, and what is left of it."""

    services: tuple[str, ...]
    path: str
    lifetime: Lifetime


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found: first on the configuration itself, then on the files that it names."""

    file: str
    findings: tuple[Diagnostic, ...]
    certificates: tuple[OwnCertificate, ...] = ()

    @property
    def ok(self) -> bool:
        return self.count(Severity.ERROR) == 0

    def count(self, severity: Severity) -> int:
        return sum(finding.severity is severity for finding in self.findings)


def check(file: str, now: datetime.datetime) -> Report:
    """Read and judge a configuration and, if it is good, the files that it names; `now` is an aware time."""
    try:
        configuration = config.load(file)
    except ConfigurationError as error:
        return Report(file, error.diagnostics)
    found = [
        finding for service in configuration.services for finding in _examine(service, configuration, now)
    ]
    own = _own_certificates(configuration.services, now)
    around = (*configuration.findings, *examine(configuration), *_shortage(configuration))
    return Report(file, (*around, *_merged(found)), own)


def _shortage(configuration: Configuration) -> Iterator[Diagnostic]:
    """That the descriptor limit is too low, as far as the one of this process is that of the daemon."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shortage = Demand.of(configuration.options, configuration.services).shortage(hard)
    if shortage is not None:
        yield shortage


def _own_certificates(services: Iterable[Service], now: datetime.datetime) -> tuple[OwnCertificate, ...]:
    """The certificates of all services, each once."""
    found: dict[tuple[str, Lifetime], list[str]] = {}
    for service in services:
        for lifetime in lifetimes(service, now):
            found.setdefault((service.cert or "", lifetime), []).append(service.name)
    return tuple(OwnCertificate(tuple(names), path, lifetime) for (path, lifetime), names in found.items())


def _examine(
    service: Service, configuration: Configuration, now: datetime.datetime
) -> tuple[Diagnostic, ...]:
    chroot = configuration.options.chroot
    ca_path, crl_path = (
        inside(chroot, path) if path is not None else None for path in (service.ca_path, service.crl_path)
    )
    findings = inspect(service, ca_path, crl_path, now)
    if any(finding.severity is Severity.ERROR for finding in findings):
        return findings
    return (*findings, *_prove(service))


def _prove(service: Service) -> tuple[Diagnostic, ...]:
    """What a start would refuse and reading does not show, as a cipher list that OpenSSL does not know."""
    asked: list[str] = []

    def do_not_ask(path: str) -> bytes:
        asked.append(path)
        raise OSError("a check does not ask for pass phrases")

    try:
        libwrap.load(service)
        TlsContext(service, PassPhrases(do_not_ask))
    except ConfigurationError as error:
        # A locked key is no error here: a start will ask for its pass phrase.
        return () if asked else error.diagnostics
    return ()


def _merged(findings: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Each finding once: one that several services share, by a line above them all, names none of them."""
    merged: dict[tuple[Location | None, str], Diagnostic] = {}
    for finding in findings:
        known = merged.setdefault((finding.location, finding.message), finding)
        if known.service != finding.service:
            merged[finding.location, finding.message] = replace(finding, service=None)
    return tuple(merged.values())


def show_text(report: Report, console: Console) -> None:
    """One finding a line, `SEVERITY: FILE:LINE: "the line": what is wrong (what to do)`; then what is left of
    each certificate, and a summary.
    """
    for finding in report.findings:
        mark = (f"{finding.severity.value}: ", _STYLES[finding.severity])
        console.print(Text.assemble(mark, printable(str(finding))), soft_wrap=True)
    for own in report.certificates:
        console.print(Text(printable(f"{own.path}: {own.lifetime}")), soft_wrap=True)
    counts = ", ".join(f"{report.count(severity)} {severity.value}(s)" for severity in Severity)
    style = "bold green" if report.ok else "bold red"
    verdict = "can be used" if report.ok else "cannot be used"
    console.print(Text(f"{report.file} {verdict}: {counts}", style), soft_wrap=True)


def to_json(report: Report) -> str:
    """The report as one JSON object.

    {"file": str, "ok": bool, "findings": [{"severity": "error" | "warning" | "note", "path": str | null,
    "line": int | null, "text": str | null, "service": str | null, "message": str, "hint": str | null}],
    "certificates": [{"services": [str], "path": str, "subject": str, "expires": str, "days": int}]}

    `expires` is in the form of ISO 8601.
    """
    findings = [_as_object(finding) for finding in report.findings]
    certificates = [
        {
            "services": own.services,
            "path": own.path,
            "subject": own.lifetime.subject,
            "expires": own.lifetime.expires.isoformat(),
            "days": own.lifetime.days,
        }
        for own in report.certificates
    ]
    report_object = {
        "file": report.file,
        "ok": report.ok,
        "findings": findings,
        "certificates": certificates,
    }
    return json.dumps(report_object, indent=2)


def _as_object(finding: Diagnostic) -> dict[str, str | int | None]:
    where = finding.location
    return {
        "severity": finding.severity.value,
        "path": where.path if where is not None else None,
        "line": where.line if where is not None else None,
        "text": where.text if where is not None else None,
        "service": finding.service,
        "message": finding.message,
        "hint": finding.hint,
    }
