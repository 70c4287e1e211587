"""What `culvert check` finds around a configuration: folders, users and programs that it needs.

An error is what a start would refuse, a warning what connections would meet later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from culvert import privileges
from culvert.address import UnixPath
from culvert.config.model import Configuration, GlobalOptions, Service
from culvert.errors import ConfigurationError, Diagnostic, Location, Severity
from culvert.jail import inside


def examine(configuration: Configuration) -> Iterator[Diagnostic]:
    """The findings of the daemon's options, then those of the services. Raises nothing."""
    options = configuration.options
    if options.chroot is not None and not Path(options.chroot).is_dir():
        message = f"The chroot directory {options.chroot} does not exist"
        yield Diagnostic(Severity.ERROR, message, options.locations.get("chroot"))
    else:
        yield from _folders(options, inetd=configuration.inetd)
        for service in configuration.services:
            yield from _program(service, options.chroot)
    yield from _owners(options.setuid, options.setgid, options.locations.get)
    for service in configuration.services:
        if isinstance(service.accept, UnixPath):
            yield from _owners(service.setuid, service.setgid, service.locations.get)


def _folders(options: GlobalOptions, *, inetd: bool) -> Iterator[Diagnostic]:
    files = {"output": options.output, "pid": None if inetd else options.pid}
    for option, path in files.items():
        folder = inside(options.chroot, path).parent if path else None
        if folder is not None and not folder.is_dir():
            yield Diagnostic(
                Severity.ERROR,
                f"the folder {folder} does not exist",
                options.locations.get(option),
                hint="with 'chroot', the path is meant inside of it" if options.chroot is not None else None,
            )


def _program(service: Service, chroot: str | None) -> Iterator[Diagnostic]:
    if service.exec is None or "/" not in service.exec:  # a name alone is looked for in PATH
        return
    program = inside(chroot, service.exec)
    if program.is_file() and os.access(program, os.X_OK):
        return
    fault = "is not executable" if program.exists() else "does not exist"
    yield Diagnostic(Severity.WARNING, f"the program {program} {fault}", service.where("exec"), service.name)


def _owners(
    user: str | int | None, group: str | int | None, where: Callable[[str], Location | None]
) -> Iterator[Diagnostic]:
    try:
        if user is not None:
            privileges.find_user(user, where("setuid"))
    except ConfigurationError as error:
        yield from error.diagnostics
    try:
        if group is not None:
            privileges.find_group(group, where("setgid"))
    except ConfigurationError as error:
        yield from error.diagnostics
