"""What `culvert check` finds around a configuration: folders, users and programs that it needs.

An error is what a start would refuse, a warning what connections would meet later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from culvert import privileges
from culvert.address import UnixPath
from culvert.admin.token import read_token
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
        yield from _endpoint(options)
        for service in configuration.services:
            yield from _program(service, options.chroot)
    yield from _identity(options)
    for service in configuration.services:
        if isinstance(service.accept, UnixPath):
            yield from _socket_folder(service.accept, service.where("accept"), service.name)
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


def _endpoint(options: GlobalOptions) -> Iterator[Diagnostic]:
    """Of the admin endpoint, which is opened outside of the jail."""
    admin = options.admin
    if admin is None:
        return
    if isinstance(admin.address, UnixPath):
        yield from _socket_folder(admin.address, options.locations.get("admin"))
    if admin.token_file is not None:
        try:
            read_token(admin.token_file, options.locations.get("adminTokenFile"))
        except ConfigurationError as error:
            yield from error.diagnostics


def _socket_folder(
    address: UnixPath, where: Location | None, service: str | None = None
) -> Iterator[Diagnostic]:
    folder = Path(address.path).parent
    if not folder.is_dir():
        yield Diagnostic(Severity.ERROR, f"the folder {folder} does not exist", where, service)


def _program(service: Service, chroot: str | None) -> Iterator[Diagnostic]:
    if service.exec is None or "/" not in service.exec:  # a name alone is looked for in PATH
        return
    program = inside(chroot, service.exec)
    if program.is_file() and os.access(program, os.X_OK):
        return
    fault = "is not executable" if program.exists() else "does not exist"
    yield Diagnostic(Severity.WARNING, f"the program {program} {fault}", service.where("exec"), service.name)


def _identity(options: GlobalOptions) -> Iterator[Diagnostic]:
    """Of what the workers become, which is more than a user's number: its group is needed, too."""
    if not isinstance(options.setuid, int) or options.setgid is not None:
        yield from _owners(options.setuid, options.setgid, options.locations.get)
        return
    try:
        privileges.user_identity(options.setuid, None, options.locations.get("setuid"))
    except ConfigurationError as error:
        yield from error.diagnostics


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
